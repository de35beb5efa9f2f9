"""One optimiser step of whole networks in PyTorch, at the word of whoever measures: the twin of training.rs.

training.py MODEL BATCH [DEVICE [MODE]]: MODE is `eager` or `compile`; on CUDA channels-last and bfloat16 autocast.
"""

import resource
import sys
import time

import torch
from torch import nn


class Basic(nn.Module):
    def __init__(self, inputs, width, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        plain = stride == 1 and inputs == width
        self.skip = None if plain else nn.Sequential(nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + (x if self.skip is None else self.skip(x)))


def resnet18():
    layers, inputs = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)], 64
    for width, first in [(64, 1), (128, 2), (256, 2), (512, 2)]:
        for stride in (first, 1):
            layers.append(Basic(inputs, width, stride))
            inputs = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


def vgg16_bn():
    layers, inputs = [], 3
    for width, count in [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)]:
        for _ in range(count):
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            inputs = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(512, 10))


class Inverted(nn.Module):
    def __init__(self, inputs, width, stride, expand):
        super().__init__()
        inner, layers = inputs * expand, []
        if expand != 1:
            layers += [nn.Conv2d(inputs, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU6(inplace=True)]
        layers += [nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False), nn.BatchNorm2d(inner), nn.ReLU6(inplace=True)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(inner, width, 1, bias=False), nn.BatchNorm2d(width))
        self.plain = stride == 1 and inputs == width

    def forward(self, x):
        return x + self.layers(x) if self.plain else self.layers(x)


def mobilenet_v2(strides):
    def conv(inputs, width, kernel, stride=1):
        return [nn.Conv2d(inputs, width, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(width), nn.ReLU6(inplace=True)]

    layers, inputs = conv(3, 32, 3, strides[0]), 32
    stages = [(1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1)]
    for (expand, width, count), first in zip(stages, strides[1:]):
        for nth in range(count):
            layers.append(Inverted(inputs, width, first if nth == 0 else 1, expand))
            inputs = width
    layers += conv(320, 1280, 1) + [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(1280, 10)]
    return nn.Sequential(*layers)


MODELS = {"resnet18": resnet18, "vgg16_bn": vgg16_bn, "mobilenet_v2": lambda: mobilenet_v2([1, 1, 1, 2, 2, 1, 2, 1])}


def main():
    name, batch = sys.argv[1], int(sys.argv[2])
    device, mode = (sys.argv[3:] + ["cpu", "eager"][len(sys.argv) - 3 :])[:2]
    torch.manual_seed(0)
    model = MODELS[name]().to(device)
    xs, labels = torch.rand(batch, 3, 32, 32, device=device), torch.arange(batch, device=device) % 10
    if device == "cuda":
        model, xs = model.to(memory_format=torch.channels_last), xs.to(memory_format=torch.channels_last)
    step_model = torch.compile(model) if mode == "compile" else model
    sgd = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    for _ in sys.stdin:
        start = time.perf_counter()
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            loss = nn.functional.cross_entropy(step_model(xs), labels)
        sgd.zero_grad(set_to_none=True)
        loss.backward()
        sgd.step()
        if device == "cuda":
            torch.cuda.synchronize()
        print(time.perf_counter() - start, flush=True)
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(peak, flush=True)


main()
