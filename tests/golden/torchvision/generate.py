"""Golden numbers of torchvision's networks: names and shapes of their parameters, logits, and gradients. Run it beside `models.json`.

Parameters and pictures are filled as in `../s3net/README.md`, with a weight gain of 1. Gradients are those of the mean cross-entropy of
labels 0, 1, 2, .. in training mode, without dropout; of each, the sum, the Euclidean norm, the largest magnitude and the first three.
"""

import copy
import json
import math

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from torchvision import models

def fill(stream, count):
    # Wraps around at 64 bits.
    z = (np.arange(1, count + 1, dtype=np.uint64) + np.uint64(stream << 32)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return torch.from_numpy((z >> np.uint64(11)).astype(np.float64) / 2**52 - 1.0)


def filled(net):
    with torch.no_grad():
        for j, (name, parameter) in enumerate(net.named_parameters()):
            numbers = fill(j, parameter.numel()).reshape(parameter.shape)
            if parameter.dim() > 1:
                numbers *= math.sqrt(1 / parameter[0].numel())
            elif name.endswith("bias"):
                numbers *= 0.1
            else:
                numbers = 1 + 0.2 * numbers
            parameter.copy_(numbers)
    return net


def summary(tensor):
    flat = tensor.detach().double().flatten()
    return [flat.sum().item(), flat.norm().item(), flat.abs().max().item(), *flat[:3].tolist()]


def run(net, pictures):
    net.eval()
    made = {"eval_logits": net(pictures)[:, :10].tolist()}
    net.train()
    logits = net(pictures)
    made["train_logits"] = logits[:, :10].tolist()
    F.cross_entropy(logits, torch.arange(len(pictures))).backward()
    made["gradients"] = [summary(parameter.grad) for parameter in net.parameters()]
    return made


def model(make, side):
    torch.manual_seed(0)
    with torch.device("cpu" if side else "meta"):
        net = make(weights=None, num_classes=20).double()
    for module in net.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    made = {"state": [[name, list(t.shape)] for name, t in net.state_dict().items() if not name.endswith("num_batches_tracked")]}
    if side:
        filled(net)
        at = torch.arange(3 * 3 * side * side, dtype=torch.float64)
        pictures = (torch.sin(0.001 * at) + 0.3 * torch.sin(0.73 * at)).reshape(3, 3, side, side)
        single = copy.deepcopy(net).float()
        made |= {"side": side, "f64": run(net, pictures), "f32": run(single, pictures.float())}
    return made


def narrow_vgg(weights, num_classes):
    """VGG-13 with batch norm, an eighth as wide, with small hidden layers."""
    layers = [8, 8, "M", 16, 16, "M", 32, 32, "M", 64, 64, "M", 64, 64, "M"]
    net = models.VGG(models.vgg.make_layers(layers, batch_norm=True), num_classes=num_classes)
    linear, relu, dropout = torch.nn.Linear, torch.nn.ReLU, torch.nn.Dropout
    hidden = [linear(64 * 49, 24), relu(), dropout(), linear(24, 12), relu(), dropout()]
    net.classifier = torch.nn.Sequential(*hidden, linear(12, num_classes))
    return net


made = {
    "resnet18": model(models.resnet18, 64),
    "resnet50": model(models.resnet50, 40),
    "resnext50_32x4d": model(models.resnext50_32x4d, 40),
    "wide_resnet50_2": model(models.wide_resnet50_2, None),
    "vgg16_bn": model(models.vgg16_bn, None),
    "vgg19_bn": model(models.vgg19_bn, None),
    "narrow_vgg": model(narrow_vgg, 72),
    "mobilenet_v2": model(models.mobilenet_v2, 64),
}
with open("models.json", "w") as file:
    file.write("{\n" + ",\n".join(f'"{name}": {json.dumps(one)}' for name, one in made.items()) + "\n}\n")
print(torch.__version__, torchvision.__version__)
