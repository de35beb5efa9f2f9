"""What those loaders read that have a format of their own, written from a folder of JPEG files for each class.

writing.py PEER WORKERS FOLDER TO     makes it in the folder TO; prints `took`, seconds of processors and of the clock, imports left out
"""

import multiprocessing
import os
import sys
import time


def listed(folder):
    """Files and their labels."""
    for label, name in enumerate(sorted(os.listdir(folder))):
        for at, _, files in sorted(os.walk(os.path.join(folder, name))):
            yield from ((os.path.join(at, file), label) for file in sorted(files))


def webdataset(folder, to, workers):
    import webdataset as web

    yield
    with web.ShardWriter(os.path.join(to, "%03d.tar"), maxcount=200, verbose=0) as writer:
        for number, (path, label) in enumerate(listed(folder)):
            with open(path, "rb") as file:
                writer.write({"__key__": f"{number:08}", "jpg": file.read(), "cls": str(label).encode()})


def mosaic(folder, to, workers):
    import streaming

    yield
    with streaming.MDSWriter(out=os.path.join(to, "mds"), columns={"x": "bytes", "y": "int"}) as writer:
        for path, label in listed(folder):
            with open(path, "rb") as file:
                writer.write({"x": file.read(), "y": label})


def ffcv(folder, to, workers):
    from ffcv.fields import IntField, RGBImageField
    from ffcv.writer import DatasetWriter
    from PIL import Image

    files = list(listed(folder))

    class Pictures:
        def __len__(self):
            return len(files)

        def __getitem__(self, index):
            path, label = files[index]
            return Image.open(path).convert("RGB"), label

    yield
    writer = DatasetWriter(os.path.join(to, "pictures.beton"), {"x": RGBImageField(write_mode="jpg"), "y": IntField()}, num_workers=workers)
    writer.from_indexed_dataset(Pictures())


def write(peer, folder, to, workers):
    """Imports what a peer needs at once, writes when called."""
    steps = {writer.__name__: writer for writer in [webdataset, mosaic, ffcv]}[peer](folder, to, workers)
    next(steps)
    return lambda: next(steps, None)


def main():
    peer, workers, folder, to = sys.argv[1:]
    work = write(peer, folder, to, int(workers))
    start, before = time.perf_counter(), os.times()
    work()
    for child in multiprocessing.active_children():
        child.join()
    after = os.times()
    # In user and system mode, of this process and of those that it has waited for.
    print("took", sum(after[:4]) - sum(before[:4]), time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main()
