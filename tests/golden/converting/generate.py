"""Golden files for conversions, made by Pillow, py-lmdb and pyarrow 10.0.1 (the last but one that has `serialize`): run it beside
`pictures.json` and `seed.lmdb`.

`pictures.json`: JPEG and PNG files (base64) of kinds that the crate `image` cannot write, and their pixels as Pillow has them.
`seed.lmdb`: eight of the pictures below in the layout of folder2lmdb.py.
"""

import base64
import io
import json
import os
import pathlib

import lmdb
import pyarrow
from PIL import Image, ImageOps


def gradient(width, height):
    """Grey levels that change slowly, so that JPEG keeps them nearly, and differ in every corner."""
    pixels = [(40 + 150 * y // height, 30 + 170 * x // width, 90 + 60 * x * y // (width * height)) for y in range(height) for x in range(width)]
    picture = Image.new("RGB", (width, height))
    picture.putdata(pixels)
    return picture


def saved(picture, **how):
    file = io.BytesIO()
    picture.save(file, **how)
    return file.getvalue()


def base(data):
    return base64.b64encode(data).decode()


def entry(file, pixels):
    return {"file": base(file), "width": pixels.width, "height": pixels.height, "rgb": base(pixels.convert("RGB").tobytes())}


def inks():
    inks = Image.merge("CMYK", [*gradient(40, 24).split(), gradient(40, 24).convert("L").point(lambda grey: grey // 3)])
    cmyk = saved(inks, format="JPEG", quality=95, subsampling=0)
    # Adobe's segment ends in the transform: 0 says CMYK, 2 YCCK.
    at = cmyk.index(b"Adobe") + 11
    ycck = cmyk[:at] + b"\2" + cmyk[at + 1 :]
    return {name: entry(file, Image.open(io.BytesIO(file))) for name, file in [("cmyk", cmyk), ("ycck", ycck)]}


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = saved(gradient(24, 16), format="JPEG", quality=95, subsampling=0, exif=exif)
    return entry(file, ImageOps.exif_transpose(Image.open(io.BytesIO(file))))


def deep():
    grey = Image.new("I;16", (8, 4))
    grey.putdata([257 * (7 * i) + 3 for i in range(32)])
    return base(saved(grey, format="PNG"))


def profiled():
    return base(saved(gradient(24, 16), format="JPEG", quality=90, icc_profile=b"a profile of no colour space" * 10))


def restarting():
    return base(saved(gradient(64, 48), format="JPEG", quality=95, restart_marker_blocks=3))


def seed(path):
    if path.exists():
        os.remove(path)
    db = lmdb.open(str(path), subdir=False, map_size=1 << 20, lock=False)
    with db.begin(write=True) as transaction:
        keys = [str(index).encode() for index in range(8)]
        for index, key in enumerate(keys):
            file = saved(gradient(16 + index, 12), format="JPEG")
            transaction.put(key, pyarrow.serialize((file, index % 3)).to_buffer())
        transaction.put(b"__keys__", pyarrow.serialize(keys).to_buffer())
        transaction.put(b"__len__", pyarrow.serialize(len(keys)).to_buffer())
    db.close()


here = pathlib.Path(__file__).parent
golden = {
    **inks(),
    "turned": [turned(orientation) for orientation in range(1, 9)],
    "deep.png": deep(),
    "profiled.jpg": profiled(),
    "restarting.jpg": restarting(),
}
(here / "pictures.json").write_text(json.dumps(golden, indent=1) + "\n")
seed(here / "seed.lmdb")
