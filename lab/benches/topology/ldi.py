"""Layerwise dynamical isometry as the published program computes it: a dense diagonal matrix for each sample, filled unit by unit in Python, a
product with the layer's matrix, and singular values from PyTorch. With the true slopes, so that the work is that of `main.rs`.

    python ldi.py [SECONDS]

says how often a second it goes through 100 samples, for the network of `main.rs`: width 8, 16 layers, at most 8 links.
"""

import math
import sys
import time

import torch

WIDTH, DEPTH, LINKS, INPUTS, CLASSES, SAMPLES = 8, 16, 8, 784, 10, 100


def network(generator):
    """Weights, biases and links of each layer; links count from the newest layer that may be linked."""
    layers = []
    for at in range(DEPTH):
        candidates = WIDTH * max(at - 1, 0)
        links = torch.randperm(candidates, generator=generator)[: min(LINKS, candidates)]
        fan_in = INPUTS if at == 0 else WIDTH + len(links)
        uniform = lambda *shape: (2 * torch.rand(*shape, generator=generator) - 1) / math.sqrt(fan_in)
        outputs = CLASSES if at == DEPTH - 1 else WIDTH
        layers.append((uniform(outputs, fan_in), uniform(outputs), links))
    return layers


def slope(z):
    return torch.where(z > 0, torch.ones_like(z), z.exp())


def diagonal(numbers):
    """(n, d) to (n, d, d), number by number."""
    n, d = numbers.shape
    matrices = torch.zeros(n, d, d)
    for sample in range(n):
        for unit in range(d):
            matrices[sample, unit, unit] = numbers[sample, unit]
    return matrices


def ldi(layers, xs):
    values, outputs = [], []
    for at, (weight, bias, links) in enumerate(layers):
        if at == 0:
            z = torch.nn.functional.linear(xs, weight, bias)
            jacobian = diagonal(slope(z)) @ weight
            outputs.append(torch.nn.functional.elu(z))
        else:
            read = outputs[-1]
            if at > 1 and len(links) > 0:
                read = torch.cat([read, torch.cat(outputs[-2::-1], 1)[:, links]], 1)
            if at == 1 or at == DEPTH - 1:
                jacobian = weight.expand(len(xs), -1, -1)
            else:
                jacobian = weight @ diagonal(slope(read))
                read = torch.nn.functional.elu(read)
            outputs.append(torch.nn.functional.linear(read, weight, bias))
        values.append(torch.linalg.svdvals(jacobian).flatten())
    return torch.cat(values).mean().item()


def main():
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 5.0
    generator = torch.Generator().manual_seed(0)
    layers, xs = network(generator), torch.rand(SAMPLES, INPUTS, generator=generator)
    with torch.no_grad():
        mean = ldi(layers, xs)
        start, rounds = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            ldi(layers, xs)
            rounds += 1
        print(f"mean {mean:.4f}, {rounds / (time.perf_counter() - start):.2f} a second")


if __name__ == "__main__":
    main()
