"""State dicts as PyTorch and safetensors write them: run it beside the files.

Number `i` of a parameter is ((7 i + 13 k) mod 64 - 32) / 32, where `k` is the sum of the bytes of its name without prefixes: exact in every
format. `value` here and in `tests/it/weighing.rs` are the same function.
"""

import torch
from safetensors.torch import save_file
from torch import nn

SHAPES = {
    "features.0.weight": (4, 2, 3, 3),
    "features.0.bias": (4,),
    "features.1.weight": (4,),
    "features.1.bias": (4,),
    "features.1.running_mean": (4,),
    "features.1.running_var": (4,),
    "classifier.weight": (3, 4),
    "classifier.bias": (3,),
}


def value(name):
    shape = torch.Size(SHAPES[name])
    return (((7 * torch.arange(shape.numel()) + 13 * sum(name.encode())) % 64 - 32) / 32).reshape(shape)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4))
        self.classifier = nn.Linear(4, 3)


net = Net()
tracked = {"features.1.num_batches_tracked": torch.tensor(7)}
net.load_state_dict({name: value(name) for name in SHAPES} | tracked)
plain = net.state_dict()

torch.save(plain, "plain.pth")
torch.save(net.state_dict(keep_vars=True), "parameters.pt")
torch.save(net, "module.pth")
torch.save(plain, "before_1_6.pth", _use_new_zipfile_serialization=False)

# Views: channels last, transposed, every second number of a longer storage from the third on, one number four times.
strided = dict(plain)
strided["features.0.weight"] = plain["features.0.weight"].to(memory_format=torch.channels_last)
strided["classifier.weight"] = plain["classifier.weight"].t().contiguous().t()
longer = torch.full((12,), 9.0)
longer[2:10:2] = plain["features.1.weight"]
strided["features.1.weight"] = longer[2:10:2]
strided["features.0.bias"] = torch.tensor([0.25]).expand(4)
assert not any(strided[name].is_contiguous() for name in ("features.0.weight", "classifier.weight", "features.1.weight", "features.0.bias"))
wrapped = {"module." + name: tensor for name, tensor in strided.items()}
optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
torch.save({"epoch": 3, "arch": "net", "state_dict": wrapped, "optimizer": optimizer.state_dict()}, "strided.pth")

types = [torch.float16, torch.bfloat16, torch.float64, torch.float32]
mixed = {name: tensor.to(types[k % 4]) for k, (name, tensor) in enumerate((name, plain[name]) for name in SHAPES)}
torch.save({"model": mixed}, "mixed.pth")
save_file(mixed, "mixed.safetensors")

torch.save(plain | {"classifier.bias": torch.tensor([1, 2, 3])}, "integers.pth")
torch.save({"epoch": 3, "optimizer": optimizer.state_dict()}, "no_weights.pth")

renamed = {"backbone." + name.replace("features.0", "stem.conv").replace("features.1", "stem.norm"): tensor for name, tensor in plain.items()}
save_file(renamed | {"head.aux.weight": torch.zeros(2)}, "renamed.safetensors")
