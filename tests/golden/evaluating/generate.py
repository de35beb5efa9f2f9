"""A checkpoint as torchvision and the published ImageNet programs save it, and what PyTorch makes of pictures with it. Run it beside `evaluation.json`.

The network is torchvision's MobileNetV2 at a twentieth of its width, so that the file is small; its running statistics are not those of
the first step. Pictures are made of whole numbers by `picture`, and prepared as torchvision's reference evaluation does it; their shorter
side is the one that this resizes to, since our resizing is within a grey level of Pillow's, and not the same.
"""

import json

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image
from torchvision import transforms

CLASSES, COUNT, SIZE = 10, 24, 72


def picture(i):
    y, x, c = np.meshgrid(np.arange(82), np.arange(100), np.arange(3), indexing="ij")
    waves = (x * (3 + i % 5) + y * (1 + i % 7) + 85 * c * (i % 3)) % 256
    blocks = 40 * ((x // (5 + i) + y // (9 + i // 2)) % 4)
    return ((waves + blocks) % 256).astype(np.uint8)


def prepared(*crop):
    normalize = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    each = lambda views: torch.stack([normalize(transforms.functional.to_tensor(view)) for view in views])
    single = lambda view: (view,)
    steps = [transforms.Resize(int(SIZE / 0.875)), *(crop or (transforms.CenterCrop(SIZE), single)), each]
    return torch.stack([transforms.Compose(steps)(Image.fromarray(picture(i))) for i in range(COUNT)])


def result(net, views):
    with torch.no_grad():
        logits = torch.stack([net(of_one).mean(0) for of_one in views])
    labels = torch.arange(COUNT) % CLASSES
    ranks = (logits > logits.gather(1, labels[:, None])).sum(1)
    return {
        "logits": logits.tolist(),
        "top1": (ranks < 1).double().mean().item(),
        "top5": (ranks < 5).double().mean().item(),
        "loss": F.cross_entropy(logits, labels).item(),
    }


torch.manual_seed(0)
net = torchvision.models.mobilenet_v2(weights=None, num_classes=CLASSES, width_mult=0.05)
middle, ten = prepared(), prepared(transforms.TenCrop(SIZE))
optimizer = torch.optim.SGD(net.parameters(), 0.05)
for _ in range(8):
    optimizer.zero_grad()
    F.cross_entropy(net(middle.flatten(0, 1)), torch.arange(COUNT) % CLASSES).backward()
    optimizer.step()
# With the statistics of these pictures, and a louder last layer, logits differ from picture to picture.
for module in net.modules():
    if isinstance(module, torch.nn.BatchNorm2d):
        module.reset_running_stats()
        module.momentum = None
with torch.no_grad():
    net(middle.flatten(0, 1))
    net.classifier[1].weight *= 20
net.eval()

state = {"epoch": 8, "arch": "mobilenet_v2", "best_prec1": 0.0, "optimizer": optimizer.state_dict()}
state["state_dict"] = torch.nn.DataParallel(net).state_dict()
torch.save(state, "checkpoint.pth.tar")
with open("evaluation.json", "w") as file:
    json.dump({"size": SIZE, "middle": result(net, middle), "ten": result(net, ten)}, file)
    file.write("\n")
print(torch.__version__, torchvision.__version__)
