"""Golden numbers for the kernels, made by PyTorch in double precision: run it beside `kernels.json`.

Inputs are not stored but filled from a counter (SplitMix64, numbers in -1..1), so that the file stays small; `fill` here and in
`tests/it/differentiating.rs` are the same function. Each case stores the output and the gradients of sum(output * fill("grad")).
"""

import json

import torch
import torch.nn.functional as F

MASK = (1 << 64) - 1


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


def flat(tensor):
    return [round(x, 12) for x in tensor.detach().flatten().tolist()]


def case(name, config, shapes, f):
    """`f` of one leaf a shape (seeds 1, 2, ...); the gradient that comes back is filled with seed 100."""
    leaves = [fill(1 + i, shape).requires_grad_() for i, shape in enumerate(shapes)]
    ys = f(*leaves)
    (ys * fill(100, ys.shape)).sum().backward()
    return {
        "name": name,
        "config": config,
        "shapes": [list(shape) for shape in shapes],
        "output_shape": list(ys.shape),
        "output": flat(ys),
        "gradients": [flat(leaf.grad) for leaf in leaves],
    }


def conv(xs, weight, stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1):
    config = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return case("conv2d", config, [xs, weight, [weight[0]]], lambda x, w, b: F.conv2d(x, w, b, stride, padding, dilation, groups))


def max_pool(xs, kernel, stride, padding=(0, 0), ceil_mode=False):
    config = {"kernel": kernel, "stride": stride, "padding": padding, "ceil_mode": ceil_mode}
    # Rounded to quarters, so that there are ties.
    return case("max_pool2d", config, [xs], lambda x: F.max_pool2d(Quarters.apply(x), kernel, stride, padding, 1, ceil_mode))


class Quarters(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return torch.floor(x * 4) / 4

    @staticmethod
    def backward(ctx, grad):
        return grad


def avg_pool(xs, kernel, stride, padding=(0, 0), ceil_mode=False, divisor="window"):
    config = {"pool": {"kernel": kernel, "stride": stride, "padding": padding, "ceil_mode": ceil_mode}, "divisor": divisor}
    return case("avg_pool2d", config, [xs], lambda x: F.avg_pool2d(x, kernel, stride, padding, ceil_mode, divisor == "window"))


def batch_norm(xs):
    mean, var = torch.zeros(xs[1], dtype=torch.float64), torch.ones(xs[1], dtype=torch.float64)
    made = case("batch_norm", {"eps": 1e-3}, [xs, [xs[1]], [xs[1]]], lambda x, w, b: F.batch_norm(x, mean, var, w, b, True, 1.0, 1e-3))
    # With momentum 1 the running statistics are those of the batch.
    return made | {"mean": flat(mean), "var": flat(var)}


def activation(name, f):
    return case("activate", name, [[3, 37]], lambda x: f(x * 8))


def cross_entropy(n, k, smoothing):
    labels = [(7 * i + 3) % k for i in range(n)]
    config = {"labels": labels, "smoothing": smoothing}
    return case("cross_entropy", config, [[n, k]], lambda x: F.cross_entropy(x * 5, torch.tensor(labels), label_smoothing=smoothing))


def optimiser(name, config, make):
    param = fill(1, [7]).requires_grad_()
    optim = make([param])
    steps = []
    for step in range(5):
        param.grad = fill(10 + step, [7])
        optim.step()
        steps.append(flat(param))
    return {"name": name, "config": config, "steps": steps}


def sgd(lr, momentum, nesterov, weight_decay):
    config = {"lr": lr, "momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
    return optimiser("sgd", config, lambda params: torch.optim.SGD(params, **config))


def adam(make, decay, weight_decay):
    config = {"lr": 0.05, "beta1": 0.8, "beta2": 0.95, "eps": 1e-6, "weight_decay": weight_decay, "decay": decay}
    return optimiser("adam", config, lambda params: make(params, lr=0.05, betas=(0.8, 0.95), eps=1e-6, weight_decay=weight_decay))


cases = [
    conv([2, 3, 7, 5], [4, 3, 3, 3], padding=(1, 1)),
    conv([3, 2, 9, 8], [4, 2, 3, 2], stride=(2, 3), padding=(1, 2)),
    conv([1, 4, 11, 7], [6, 2, 3, 3], stride=(2, 1), padding=(2, 0), dilation=(2, 3), groups=2),
    conv([2, 5, 6, 7], [5, 1, 3, 3], stride=(2, 2), padding=(1, 1), groups=5),
    conv([2, 3, 5, 5], [6, 1, 5, 1], padding=(2, 0), groups=3),
    conv([2, 6, 5, 3], [4, 6, 1, 1]),
    conv([2, 3, 7, 7], [2, 3, 1, 1], stride=(3, 3)),
    conv([5, 2, 1, 1], [3, 2, 3, 3], padding=(1, 1)),
    conv([2, 2, 4, 4], [2, 2, 2, 2], padding=(3, 3)),
    max_pool([2, 2, 7, 7], (2, 2), (2, 2)),
    max_pool([2, 2, 7, 5], (3, 3), (2, 2), (1, 1)),
    max_pool([1, 3, 6, 7], (3, 2), (1, 3), (1, 1), True),
    max_pool([1, 2, 5, 5], (2, 2), (3, 3), ceil_mode=True),
    avg_pool([2, 2, 7, 7], (2, 2), (2, 2)),
    avg_pool([2, 2, 7, 5], (3, 3), (2, 2), (1, 1)),
    avg_pool([1, 3, 6, 7], (3, 2), (1, 3), (1, 1), True),
    avg_pool([1, 3, 6, 7], (3, 2), (1, 3), (1, 1), True, "picture"),
    avg_pool([1, 2, 5, 6], (3, 3), (2, 2), (1, 1), False, "picture"),
    case("adaptive_avg_pool2d", [3, 2], [[2, 2, 7, 5]], lambda x: F.adaptive_avg_pool2d(x, (3, 2))),
    case("adaptive_avg_pool2d", [4, 5], [[1, 2, 3, 3]], lambda x: F.adaptive_avg_pool2d(x, (4, 5))),
    batch_norm([3, 4, 5, 3]),
    batch_norm([2, 3, 1, 1]),
    batch_norm([7, 5]),
    activation("relu", F.relu),
    activation("relu6", F.relu6),
    activation("elu", F.elu),
    activation("sigmoid", torch.sigmoid),
    activation("tanh", torch.tanh),
    activation("swish", F.silu),
    activation("hard_swish", F.hardswish),
    # Not F.hardsigmoid, whose slope is 1/6 rounded to single precision.
    activation("hard_sigmoid", lambda x: F.relu6(x + 3) / 6),
    cross_entropy(5, 7, 0.0),
    cross_entropy(4, 3, 0.1),
    cross_entropy(1, 1, 0.0),
    sgd(0.1, 0.0, False, 0.0),
    sgd(0.1, 0.9, False, 0.01),
    sgd(0.05, 0.9, True, 0.1),
    adam(torch.optim.Adam, "gradient", 0.0),
    adam(torch.optim.Adam, "gradient", 0.1),
    adam(torch.optim.AdamW, "parameter", 0.1),
]
with open("kernels.json", "w") as file:
    file.write("[\n" + ",\n".join(json.dumps(made) for made in cases) + "\n]\n")
print(torch.__version__, len(cases))
