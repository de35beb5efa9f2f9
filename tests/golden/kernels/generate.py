"""Golden numbers for the kernels and for the operations of a graph, made by PyTorch in double precision: run it beside
`kernels.json` and `operations.json`.

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


class Top(torch.autograd.Function):
    """The `count` largest magnitudes, of equals the later ones; the gradient passes as if all were there."""

    @staticmethod
    def forward(ctx, w, count):
        flat = w.flatten().tolist()
        order = sorted(range(len(flat)), key=lambda at: (abs(flat[at]), at))
        kept = w.flatten().clone()
        kept[order[: len(flat) - count]] = 0
        return kept.reshape(w.shape)

    @staticmethod
    def backward(ctx, grad):
        return grad, None


def top(w, count):
    # Quarters, so that there are ties.
    return Top.apply(Quarters.apply(w), count)


def operation(op, inputs, parameters, f):
    """A node of a graph: `op` as lab::graph::Op is written in JSON; `f` takes the inputs, then the parameters in their order."""
    return case("operation", {"op": op, "inputs": len(inputs)}, inputs + parameters, f)


def conv_of(channels, **others):
    settings = {"kernel": [3, 3], "stride": [1, 1], "padding": [1, 1], "dilation": [1, 1], "groups": 1, "bias": False}
    return {"conv": {"channels": channels, **settings, **others}}


def upsample(xs, size, by):
    modes = {"nearest": {"mode": "nearest"}, "bilinear": {"mode": "bilinear", "align_corners": False}}
    return operation({"upsample": {"size": size, "by": by}}, [xs], [], lambda x: F.interpolate(x, tuple(size), **modes[by]))


def layer_norm(xs, dims, affine):
    shape = xs[-dims:]
    op = {"layer_norm": {"dims": dims, "eps": 1e-3, "affine": affine}}
    return operation(op, [xs], [shape, shape] if affine else [], lambda x, w=None, b=None: F.layer_norm(x, shape, w, b, 1e-3))


def instance_norm(xs, affine):
    op = {"instance_norm": {"eps": 1e-3, "affine": affine}}
    parameters = [[xs[1]], [xs[1]]] if affine else []
    return operation(op, [xs], parameters, lambda x, w=None, b=None: F.instance_norm(x, None, None, w, b, True, 0.1, 1e-3))


def plain_batch_norm(xs):
    op = {"batch_norm": {"eps": 1e-3, "momentum": 0.1, "affine": False}}
    return operation(op, [xs], [], lambda x: F.batch_norm(x, None, None, None, None, True, 0.1, 1e-3))


def multiply(xs, gate):
    def product(x, y):
        return x * (y.reshape(*y.shape, *[1] * (x.dim() - y.dim())))

    return operation("multiply", [xs, gate], [], product)


def weighted_sum(shape, count, through):
    def f(*leaves):
        weights = torch.sigmoid(leaves[-1]) if through else leaves[-1]
        return sum(x * w for x, w in zip(leaves[:-1], weights))

    return operation({"weighted_sum": {"through": through}}, [shape] * count, [[count]], f)


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
operations = [
    operation({"linear": {"features": 4, "bias": False}}, [[3, 5]], [[4, 5]], lambda x, w: F.linear(x, w)),
    operation({"linear": {"features": 4, "bias": True}}, [[3, 2, 5]], [[4, 5], [4]], F.linear),
    operation({"linear": {"features": 4, "bias": True, "top": 7}}, [[3, 5]], [[4, 5], [4]], lambda x, w, b: F.linear(x, top(w, 7), b)),
    operation(conv_of(3, top=17), [[2, 2, 5, 3]], [[3, 2, 3, 3]], lambda x, w: F.conv2d(x, top(w, 17), padding=1)),
    operation(conv_of(4, groups=4, top=1), [[1, 4, 3, 3]], [[4, 1, 3, 3]], lambda x, w: F.conv2d(x, top(w, 1), padding=1, groups=4)),
    plain_batch_norm([3, 4, 5, 3]),
    plain_batch_norm([7, 5]),
    instance_norm([3, 4, 5, 3], True),
    instance_norm([2, 3, 1, 2], False),
    layer_norm([3, 7], 1, True),
    layer_norm([2, 3, 5], 1, True),
    layer_norm([2, 3, 5, 2], 2, False),
    layer_norm([2, 3, 5, 2], 3, True),
    operation({"softmax": {"dim": 0}}, [[3, 7]], [], lambda x: F.softmax(x, 1)),
    operation({"softmax": {"dim": 0}}, [[2, 5, 3, 2]], [], lambda x: F.softmax(x, 1)),
    operation({"softmax": {"dim": 2}}, [[2, 5, 3, 7]], [], lambda x: F.softmax(x, 3)),
    operation({"adaptive_avg_pool": {"size": [3, 2]}}, [[2, 2, 7, 5]], [], lambda x: F.adaptive_avg_pool2d(x, (3, 2))),
    upsample([2, 2, 3, 5], [6, 10], "nearest"),
    upsample([1, 2, 5, 3], [7, 7], "nearest"),
    upsample([1, 2, 7, 5], [3, 4], "nearest"),
    upsample([2, 2, 3, 5], [6, 10], "bilinear"),
    upsample([1, 2, 5, 3], [7, 11], "bilinear"),
    upsample([1, 2, 7, 5], [3, 4], "bilinear"),
    upsample([1, 3, 1, 1], [3, 2], "bilinear"),
    operation({"permute": {"order": [2, 0, 1]}}, [[2, 3, 4, 5]], [], lambda x: x.permute(0, 3, 1, 2)),
    operation({"slice": {"dim": 0, "start": 1, "len": 2}}, [[2, 4, 3, 2]], [], lambda x: x[:, 1:3]),
    operation({"slice": {"dim": 2, "start": 2, "len": 3}}, [[2, 4, 3, 5]], [], lambda x: x[:, :, :, 2:5]),
    operation({"reshape": {"shape": [6, 2]}}, [[2, 3, 2, 2]], [], lambda x: x.reshape(2, 6, 2)),
    weighted_sum([2, 3, 2, 2], 3, None),
    weighted_sum([2, 3], 2, "sigmoid"),
    weighted_sum([2, 5, 3, 3], 1, None),
    multiply([2, 3, 4, 5], [2, 3, 4, 5]),
    multiply([2, 3, 4, 5], [2, 3]),
    multiply([2, 3, 4, 5], [2, 3, 1, 1]),
    multiply([2, 3, 4, 5], [2, 1, 4, 5]),
    multiply([2, 3, 4], [2, 1, 4]),
    operation("matmul", [[2, 3, 4], [2, 4, 5]], [], torch.matmul),
    operation("matmul", [[2, 3, 1, 4], [2, 3, 4, 2]], [], torch.matmul),
    operation({"scale": {"by": -0.75}}, [[2, 3]], [], lambda x: x * -0.75),
]
for name, made in [("kernels", cases), ("operations", operations)]:
    with open(f"{name}.json", "w") as file:
        file.write("[\n" + ",\n".join(json.dumps(one) for one in made) + "\n]\n")
    print(torch.__version__, name, len(made))
