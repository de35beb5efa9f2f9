"""Small JPEG files of many kinds, and what Pillow (libjpeg-turbo) decodes them to: run it beside `pillow.json`.

Each case is the file in base64 and the SHA-256 of its pixels, row after row, channels last.
"""

import base64
import hashlib
import io
import json

import numpy as np
import simplejpeg
from PIL import Image, features


def picture(height, width, channels):
    """Soft colours, edges and a grain, so that all kinds of blocks occur."""
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(channels), indexing="ij")
    grain = (x * 7919 + y * 104729 + c * 1299709 + x * y * 31) % 41
    edge = np.where((x + 2 * y) // 13 % 2 == 0, 90, 0)
    return ((y * 100 // height + x * 60 // width * (1 + c) + edge + grain * (y > height // 3)) % 256).astype(np.uint8).squeeze()


def saved(size, channels=3, **options):
    file = io.BytesIO()
    Image.fromarray(picture(*size, channels)).save(file, "JPEG", **options)
    return file.getvalue()


def case(name, size, channels=3, **options):
    return of(name, saved(size, channels, **options), channels)


def of(name, file, channels=3):
    pixels = np.asarray(Image.open(io.BytesIO(file)))
    return {
        "name": name,
        "shape": [pixels.shape[0], pixels.shape[1], channels],
        "jpeg": base64.b64encode(file).decode(),
        "sha256": hashlib.sha256(pixels.tobytes()).hexdigest(),
    }


cases = []
for name, sampling in {"4:4:4": "4:4:4", "4:2:2": "4:2:2", "4:2:0": "4:2:0"}.items():
    for size in [(37, 50), (16, 16), (33, 17), (8, 71)]:
        cases.append(case(f"{name} {size[0]}x{size[1]}", size, subsampling=sampling, quality=88))
# Rows are halved and columns are not where a picture of 4:2:2 was turned by a quarter; Pillow reads that, and does not write it.
for size in [(37, 50), (16, 33)]:
    pixels = np.ascontiguousarray(picture(*size, 3))
    cases.append(of(f"4:4:0 {size[0]}x{size[1]}", simplejpeg.encode_jpeg(pixels, quality=88, colorsubsampling="440")))
cases.append(case("grey", (45, 31), channels=1, quality=90))
cases.append(case("restart markers", (60, 70), subsampling="4:2:0", quality=80, restart_marker_blocks=3))
cases.append(case("restart rows", (60, 70), subsampling="4:4:4", quality=80, restart_marker_rows=1))
cases.append(case("tables of its own", (64, 64), subsampling="4:2:0", quality=70, optimize=True))
cases.append(case("coarse", (40, 40), subsampling="4:2:0", quality=3))
cases.append(case("fine", (40, 40), subsampling="4:4:4", quality=100))
with open("pillow.json", "w") as file:
    json.dump({"pillow": Image.__version__, "libjpeg_turbo": features.version("jpg"), "cases": cases}, file, indent=1)
