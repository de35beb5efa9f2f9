"""As client.py, of a server of the same user on the same machine, in whose memory the pictures are read: nothing is copied."""
import json, mmap, os, sys
import numpy as np
from pyarrow import flight

url, dataset, *token = sys.argv[1:]
client = flight.connect(url)
options = flight.FlightCallOptions(headers=[(b"authorization", b"Bearer " + t.encode()) for t in token])
loader = {"split": "train", "batch": 64, "seed": 0, "transforms": [{"flip": {"p": 0.5}}]}
for epoch in range(2):
    ticket = json.dumps({"dataset": dataset, "epoch": epoch, "loader": loader})
    writer, reader = client.do_exchange(flight.FlightDescriptor.for_command(ticket), options)
    with writer:
        about, where = (json.loads(reader.schema.metadata[key]) for key in (b"topolab", b"topolab-memory"))
        file = os.open(f"/proc/{where['process']}/fd/{where['file']}", os.O_RDONLY)
        boot = open("/proc/sys/kernel/random/boot_id").read().strip()
        assert (os.fstat(file).st_ino, boot) == (where["inode"], where["boot"]), "a server in another container, or on another machine"
        memory = mmap.mmap(file, where["bytes"], prot=mmap.PROT_READ)
        os.close(file)
        writer.write_metadata(b'"opened"')
        for part, place in reader:
            if part is None:
                break  # the end
            place = json.loads(place.to_pybytes())
            shape = (len(part), *about["shape"])
            images = np.frombuffer(memory, np.uint8, int(np.prod(shape)), place["at"]).reshape(shape)  # n, c, h, w
            labels, indices = part["label"].to_numpy(), part["index"].to_numpy()
            print(epoch, images.dtype, images.shape, int(images.sum(dtype=np.int64)), labels[:4], indices[:4])
            writer.write_metadata(json.dumps({"returned": place["at"]}).encode())  # and images is not to be read any more
