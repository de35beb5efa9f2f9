"""Writes pixels.json: what Pillow, torchvision and NumPy make of a picture given by a formula.

python generate.py    (numpy, pillow, torch, torchvision)
"""

import json
from pathlib import Path

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image
from torchvision.transforms import InterpolationMode, functional
from torchvision.transforms._functional_tensor import adjust_hue

HEIGHT, WIDTH = 12, 17


def formula(height, width):
    """The picture of it/augmenting.rs."""
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    return ((3 * x + 5 * y + 40 * c + (x * y) % 17) % 256).astype(np.uint8)


def colourful(height, width):
    """All hues, some grey, some black and white."""
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    return ((x * x * (c + 1) * 7 + y * (89 * c + 31) + (x * y * (3 - c)) % 255) % 256 // (1 + (y == 3) * 255)).astype(np.uint8)


def flat(picture):
    return np.asarray(picture).reshape(-1).tolist()


def rotations():
    for angle in (0, 90, 180, -90, 30, -12.5, 45, 359):
        for name, mode in (("nearest", InterpolationMode.NEAREST), ("bilinear", InterpolationMode.BILINEAR)):
            picture = Image.fromarray(formula(HEIGHT, WIDTH))
            turned = functional.rotate(picture, angle, mode, fill=[9, 8, 7])
            yield {"degrees": angle, "between": name, "pixels": flat(turned)}


def jitters():
    picture = Image.fromarray(colourful(HEIGHT, WIDTH))
    for name in ("brightness", "contrast", "saturation"):
        for factor in (0.0, 0.4, 1.0, 1.7):
            yield {"step": name, "factor": factor, "pixels": flat(getattr(functional, f"adjust_{name}")(picture, factor))}
    # On tensors, since Pillow rounds to 256 hues.
    tensor = torch.from_numpy(colourful(HEIGHT, WIDTH)).permute(2, 0, 1)
    for factor in (-0.5, -0.2, 0.0, 0.1, 0.35):
        yield {"step": "hue", "factor": factor, "pixels": flat(adjust_hue(tensor, factor).permute(1, 2, 0))}


def contrasts():
    picture = colourful(HEIGHT, WIDTH).astype(np.float64)
    for scale, bias, least, use_std in ((1.0, 0.0, 1e-8, True), (1.0, 10.0, 1e-8, True), (55.0, 0.0, 1e-8, False)):
        # pylearn2.expr.preprocessing.global_contrast_normalize, by its documentation.
        values = picture.reshape(-1) - picture.mean()
        spread = values.var(ddof=1) if use_std else (values**2).sum()
        divisor = np.sqrt(bias + spread) / scale
        values = values / (divisor if divisor >= least else 1.0)
        yield {"scale": scale, "sqrt_bias": bias, "use_std": use_std, "values": values.round(6).tolist()}


golden = {
    "versions": {"numpy": np.__version__, "pillow": PIL.__version__, "torch": torch.__version__, "torchvision": torchvision.__version__},
    "height": HEIGHT,
    "width": WIDTH,
    "colourful": flat(colourful(HEIGHT, WIDTH)),
    "rotations": list(rotations()),
    "jitters": list(jitters()),
    "contrasts": list(contrasts()),
}
Path(__file__).with_name("pixels.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")
