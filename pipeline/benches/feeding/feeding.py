"""The loaders that people use today, as programs that hand out batches when they are told to; see main.rs beside this file.

feeding.py PEER photographs|thumbnails FOLDER SCRATCH WORKERS u8|f32

FOLDER has a folder of JPEG files for each class; what a peer converts goes below SCRATCH, once. Exits with 3 where the peer is not installed.
"""

import io
import os
import sys
import time

from writing import listed, write

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WARM = 6

peer, what, folder, scratch, workers, output = sys.argv[1:]
workers, photographs = int(workers), what == "photographs"
batch, size = (64, 224) if photographs else (256, 64)


def written():
    """The folder of what the peer reads, made when it is not there."""
    to = os.path.join(scratch, peer)
    if not os.path.isdir(to):
        work = write(peer, folder, to + ".partial", workers)
        os.makedirs(to + ".partial", exist_ok=True)
        work()
        os.rename(to + ".partial", to)
    return to


def steps():
    """Random resized crop or padded crop, and mirroring, of a PIL picture."""
    import torch
    from torchvision.transforms import v2

    crop = v2.RandomResizedCrop(size, antialias=True) if photographs else v2.RandomCrop(size, padding=8)
    floats = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)] if output == "f32" else []
    return v2.Compose([crop, v2.RandomHorizontalFlip(), v2.PILToTensor(), *floats])


def loaded(dataset, **options):
    from torch.utils.data import DataLoader

    loader = DataLoader(dataset, batch_size=batch, num_workers=workers, drop_last=True, persistent_workers=workers > 0, **options)
    while True:
        yield from loader


def torchvision():
    from torchvision.datasets import ImageFolder

    return loaded(ImageFolder(folder, transform=steps()), shuffle=True)


def webdataset():
    import webdataset as web

    shards = written()
    names = sorted(os.path.join(shards, name) for name in os.listdir(shards))
    samples = web.WebDataset(names, shardshuffle=len(names), workersplitter=web.split_by_worker, empty_check=False)
    samples = samples.shuffle(1000).decode("pilrgb").to_tuple("jpg", "cls").map_tuple(steps(), int).batched(batch, partial=False).repeat()
    return iter(web.WebLoader(samples, batch_size=None, num_workers=workers))


def mosaic():
    import streaming
    from PIL import Image

    shards = os.path.join(written(), "mds")

    class Pictures(streaming.StreamingDataset):
        transform = staticmethod(steps())

        def __getitem__(self, index):
            sample = super().__getitem__(index)
            return self.transform(Image.open(io.BytesIO(sample["x"])).convert("RGB")), sample["y"]

    streaming.base.util.clean_stale_shared_memory()
    return loaded(Pictures(local=shards, shuffle=True, batch_size=batch))


def dali():
    from nvidia.dali import fn, pipeline_def, types

    files = list(listed(folder))
    floats = output == "f32"

    @pipeline_def(batch_size=batch, num_threads=workers, device_id=None, prefetch_queue_depth=2)
    def steps():
        names, labels = zip(*files)
        jpeg, label = fn.readers.file(file_root="/", files=list(names), labels=list(labels), shuffle_after_epoch=True)
        if photographs:
            part = fn.decoders.image_random_crop(jpeg, random_aspect_ratio=[3 / 4, 4 / 3], random_area=[0.08, 1.0])
            picture = fn.resize(part, size=[size, size])
        else:
            offset = [fn.random.uniform(range=[-8, 8.999]) for _ in range(2)]
            picture = fn.slice(
                fn.decoders.image(jpeg), start=fn.cast(fn.floor(fn.stack(*offset)) if hasattr(fn, "floor") else fn.stack(*offset), dtype=types.INT32),
                shape=[size, size], axes=[0, 1], out_of_bounds_policy="pad", fill_values=0,
            )
        picture = fn.crop_mirror_normalize(
            picture, mirror=fn.random.coin_flip(), output_layout="CHW", dtype=types.FLOAT if floats else types.UINT8,
            mean=[255 * mean for mean in MEAN] if floats else [0.0] * 3, std=[255 * std for std in STD] if floats else [1.0] * 3,
        )
        return picture, label

    def batches():
        made = steps()
        made.build()
        while True:
            pictures, labels = made.run()
            yield pictures.as_array(), labels.as_array()

    return batches()


def ffcv():
    import numpy as np
    from ffcv.fields.decoders import IntDecoder, RandomResizedCropRGBImageDecoder, SimpleRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import NormalizeImage, RandomHorizontalFlip, RandomTranslate, Squeeze, ToTensor, ToTorchImage

    path = os.path.join(written(), "pictures.beton")
    picture = [RandomResizedCropRGBImageDecoder((size, size))] if photographs else [SimpleRGBImageDecoder(), RandomTranslate(padding=8)]
    picture.append(RandomHorizontalFlip())
    if output == "f32":
        picture.append(NormalizeImage(255 * np.array(MEAN), 255 * np.array(STD), np.float32))
    steps = {"x": [*picture, ToTensor(), ToTorchImage()], "y": [IntDecoder(), ToTensor(), Squeeze()]}

    def batches():
        loader = Loader(path, batch_size=batch, num_workers=workers, os_cache=True, order=OrderOption.RANDOM, drop_last=True, pipelines=steps)
        while True:
            yield from loader

    return batches()


def main():
    makers = {maker.__name__: maker for maker in [torchvision, webdataset, mosaic, dali, ffcv]}
    try:
        # Imports and conversion; the loader itself is made for the first batch.
        batches = makers[peer]()
        start = time.perf_counter()
        next(batches)
    except ImportError as error:
        print(f"{peer} is not installed: {error}", file=sys.stderr)
        sys.exit(3)
    print("ready", time.perf_counter() - start, flush=True)
    for line in sys.stdin:
        for _ in range(WARM):
            next(batches)
        print("go", flush=True)
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < float(line):
            count += len(next(batches)[0])
        print(count, flush=True)
    # Threads of some peers do not end by themselves.
    os._exit(0)


if __name__ == "__main__":
    main()
