"""Perceptrons of the NN-Mass study on MNIST, trained as a PyTorch program does it; `cargo xtask bench sweep` compares runs a minute.

    python sweep.py FOLDER EPOCHS RUNS loader|tensors

FOLDER has MNIST's four files. `loader` reads samples as the published program does, one by one through a DataLoader that makes a tensor of each
picture; `tensors` has all of them in memory and takes a batch by its indices. Prints the seconds of each run, and its test accuracy.
"""

import gzip
import os
import sys
import time

import torch
from torch.nn.functional import cross_entropy, elu

WIDTH, DEPTH, LINKS, INPUTS, CLASSES, BATCH = 8, 16, 8, 784, 10, 64


def read(folder, name, header):
    for path, opened in [(os.path.join(folder, name), open), (os.path.join(folder, name + ".gz"), gzip.open)]:
        if os.path.isfile(path):
            with opened(path, "rb") as file:
                return torch.frombuffer(bytearray(file.read()[header:]), dtype=torch.uint8)
    raise SystemExit(f"{folder}: no {name}")


class Pictures(torch.utils.data.Dataset):
    def __init__(self, pictures, labels):
        self.pictures, self.labels = pictures.view(-1, 28, 28).numpy(), labels

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return torch.from_numpy(self.pictures[index]).unsqueeze(0).float().div(255), int(self.labels[index])


class Perceptron(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers, self.links = torch.nn.ModuleList(), []
        for at in range(DEPTH):
            candidates = WIDTH * max(at - 1, 0)
            links = torch.randperm(candidates)[: min(LINKS, candidates)]
            self.links.append(links)
            inputs = INPUTS if at == 0 else WIDTH + len(links)
            self.layers.append(torch.nn.Linear(inputs, CLASSES if at == DEPTH - 1 else WIDTH))

    def forward(self, xs):
        outputs = [elu(self.layers[0](xs))]
        outputs.append(self.layers[1](outputs[0]))
        for at in range(2, DEPTH):
            earlier = torch.cat(outputs[-2::-1], 1)[:, self.links[at]]
            zs = torch.cat([outputs[-1], earlier], 1)
            outputs.append(self.layers[at](zs if at == DEPTH - 1 else elu(zs)))
        return outputs[-1]


def run(train, test, epochs, mode, seed):
    torch.manual_seed(seed)
    model = Perceptron()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loader = torch.utils.data.DataLoader(Pictures(*train), batch_size=BATCH, shuffle=True) if mode == "loader" else None
    for _ in range(epochs):
        order = torch.randperm(len(train[1])).split(BATCH)
        for batch in loader or ((train[0][part], train[1][part].long()) for part in order):
            optimizer.zero_grad()
            cross_entropy(model(batch[0].reshape(-1, INPUTS)), batch[1]).backward()
            optimizer.step()
    with torch.no_grad():
        logits = torch.cat([model(part) for part in test[0].split(100)])
    return (logits.argmax(1) == test[1]).float().mean().item()


def main():
    folder, epochs, runs, mode = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    splits = []
    for name in ["train", "t10k"]:
        pictures = read(folder, f"{name}-images-idx3-ubyte", 16).view(-1, INPUTS)
        labels = read(folder, f"{name}-labels-idx1-ubyte", 8)
        is_bytes = mode == "loader" and name == "train"
        splits.append((pictures if is_bytes else pictures.float() / 255, labels))
    for seed in range(runs):
        start = time.perf_counter()
        accuracy = run(*splits, epochs, mode, seed)
        print(time.perf_counter() - start, accuracy, flush=True)


if __name__ == "__main__":
    main()
