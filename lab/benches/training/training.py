"""Training in PyTorch: the twin of main.rs, which says what the commands are.

training.py step MODEL BATCH [DEVICE [MODE]]: MODE is `eager` or `compile`; on CUDA channels-last and bfloat16 autocast, with the
fastest of cuDNN's algorithms by trial.
training.py learn FOLDER SEED [DEVICE]
"""

import lzma
import math
import pathlib
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


def depthwise():
    def layer(inputs, width, kernel, stride=1, groups=1):
        conv = nn.Conv2d(inputs, width, kernel, stride, kernel // 2, groups=groups, bias=False)
        return [conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]

    layers, inputs = layer(3, 32, 3), 32
    for at, width in enumerate([64, 128, 128, 256, 256] + [512] * 6 + [1024] * 2):
        layers += layer(inputs, inputs, 3, 2 if at in (1, 3, 5, 11) else 1, inputs) + layer(inputs, width, 1)
        inputs = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1024, 10))


MODELS = {
    "resnet18": resnet18,
    "vgg16_bn": vgg16_bn,
    "mobilenet_v2": lambda: mobilenet_v2([1, 1, 1, 2, 2, 1, 2, 1]),
    "depthwise": depthwise,
}


def steps(name, batch, device="cpu", mode="eager"):
    batch = int(batch)
    torch.manual_seed(0)
    model = MODELS[name]().to(device)
    xs, labels = torch.rand(batch, 3, 32, 32, device=device), torch.arange(batch, device=device) % 10
    if device == "cuda":
        torch.backends.cudnn.benchmark = True
        model, xs = model.to(memory_format=torch.channels_last), xs.to(memory_format=torch.channels_last)
    step_model = torch.compile(model) if mode == "compile" else model
    sgd = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    print("params", sum(parameter.numel() for parameter in model.parameters()), flush=True)
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


MEAN, STD = [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]


def first(folder, names, count):
    """The first pictures of CIFAR-10's files, (n, 3, 32, 32) and normalised, and their labels (n)."""

    def read(name):
        plain = pathlib.Path(folder) / name
        return plain.read_bytes() if plain.is_file() else lzma.open(f"{plain}.xz").read()

    records = torch.frombuffer(bytearray(b"".join(map(read, names))), dtype=torch.uint8).view(-1, 3073)[:count]
    pixels = records[:, 1:].reshape(-1, 3, 32, 32).float() / 255
    return (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1), records[:, 0].long()


def moved(xs):
    """Each picture (n, 3, 32, 32) shifted by up to 4 pixels each way, black where nothing was, and perhaps mirrored."""
    n, device = len(xs), xs.device
    black = -torch.tensor(MEAN, device=device) / torch.tensor(STD, device=device)
    padded = nn.functional.pad(xs - black.view(3, 1, 1), (4, 4, 4, 4)) + black.view(3, 1, 1)
    side = torch.arange(32, device=device)
    rows = torch.randint(9, (n, 1), device=device) + side
    columns = torch.randint(9, (n, 1), device=device) + side
    columns = torch.where(torch.rand(n, 1, device=device) < 0.5, columns.flip(1), columns)
    samples, planes = torch.arange(n, device=device).view(n, 1, 1, 1), torch.arange(3, device=device).view(1, 3, 1, 1)
    return padded[samples, planes, rows.view(n, 1, 32, 1), columns.view(n, 1, 1, 32)]


def learn(folder, seed, device="cpu"):
    torch.manual_seed(int(seed))
    full = device != "cpu"
    epochs, batch, peak, warm_up = (30, 128, 0.1, 5) if full else (4, 64, 0.05, 1)
    files, count, test_count = ([f"data_batch_{k}.bin" for k in range(1, 6)], 50000, 10000) if full else (["data_batch_1.bin"], 4000, 2000)
    model = resnet18()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):  # as torchvision does it, and we
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    model.to(device)
    xs, labels = (tensor.to(device) for tensor in first(folder, files, count))
    test_xs, test_labels = (tensor.to(device) for tensor in first(folder, ["test_batch.bin"], test_count))
    sgd = torch.optim.SGD(model.parameters(), lr=peak, momentum=0.9, weight_decay=5e-4, nesterov=full)
    steps = math.ceil(len(xs) / batch)
    start = time.perf_counter()
    for epoch in range(epochs):
        model.train()
        for step, indices in enumerate(torch.randperm(len(xs), device=device).split(batch)):
            time = epoch + step / steps
            warm, wave = (time + 1 / steps) / warm_up, (1 + math.cos(math.pi * (time - warm_up) / (epochs - warm_up))) / 2
            sgd.param_groups[0]["lr"] = peak * (warm if epoch < warm_up else wave)
            sgd.zero_grad(set_to_none=True)
            seen = moved(xs[indices]) if full else xs[indices]
            nn.functional.cross_entropy(model(seen), labels[indices]).backward()
            sgd.step()
        model.eval()
        with torch.no_grad():
            right = sum((model(x).argmax(1) == y).sum().item() for x, y in zip(test_xs.split(batch), test_labels.split(batch)))
        print(right / len(test_labels), f"{time.perf_counter() - start:.1f}", flush=True)


{"step": steps, "learn": learn}[sys.argv[1]](*sys.argv[2:])
