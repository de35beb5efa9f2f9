"""Golden numbers for the training loop, made by PyTorch in double precision: run it beside `training.json`.

Four epochs of ten samples in batches of four, the last one of two, by SGD and by AdamW. Nothing is stored that can be filled from
a seed: `fill` is the same function as in `../kernels/generate.py`.
"""

import json
import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR

MASK = (1 << 64) - 1
SAMPLES, BATCH, EPOCHS, WARM_UP = 10, 4, 4, 2
FACTOR, CLIP, SMOOTHING, DECAY = 3.0, 0.5, 0.1, 0.02


def fill(seed, shape):
    numbers, state = [], seed
    for _ in range(torch.Size(shape).numel()):
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        z ^= z >> 31
        numbers.append((z >> 11) / 2**52 - 1.0)
    return torch.tensor(numbers, dtype=torch.float64).reshape(shape)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden, self.norm, self.out = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)

    def forward(self, xs):
        return self.out(self.norm(F.relu(self.hidden(xs))))


def groups(net, lr):
    """Decay for matrices alone, and another rate for the last layer."""
    for name, parameter in net.named_parameters():
        decayed = name in ("hidden.weight", "out.weight")
        yield {"params": [parameter], "lr": lr * (FACTOR if name.startswith("out.") else 1.0), "weight_decay": DECAY if decayed else 0.0}


def run(make, lr):
    net = Net().double()
    for seed, parameter in enumerate(net.parameters()):
        parameter.data = fill(1 + seed, parameter.shape)
    xs, labels = fill(100, (SAMPLES, 4)), torch.arange(SAMPLES) % 3
    optimizer = make(list(groups(net, lr)))
    steps = math.ceil(SAMPLES / BATCH)
    warm, rest = WARM_UP * steps, (EPOCHS - WARM_UP) * steps
    schedule = SequentialLR(
        optimizer,
        [LinearLR(optimizer, 1 / warm, 1.0, warm - 1), CosineAnnealingLR(optimizer, rest, 0.0)],
        [warm],
    )
    lrs, losses, norms = [], [], []
    for _ in range(EPOCHS):
        for at in range(0, SAMPLES, BATCH):
            loss = F.cross_entropy(net(xs[at : at + BATCH]), labels[at : at + BATCH], label_smoothing=SMOOTHING)
            optimizer.zero_grad()
            loss.backward()
            norms.append(nn.utils.clip_grad_norm_(net.parameters(), CLIP).item())
            lrs.append(optimizer.param_groups[0]["lr"])
            losses.append(loss.item())
            optimizer.step()
            schedule.step()
    state = {name: tensor.flatten().tolist() for name, tensor in net.state_dict().items() if "num_batches" not in name}
    return {"lr": lr, "lrs": lrs, "losses": losses, "norms": norms, "state": state}


cases = {
    "sgd": run(lambda groups: torch.optim.SGD(groups, momentum=0.9, nesterov=True), 0.1),
    "adam_w": run(lambda groups: torch.optim.AdamW(groups, betas=(0.9, 0.99), eps=1e-8), 0.01),
}
with open("training.json", "w") as file:
    json.dump(cases, file)
    file.write("\n")
