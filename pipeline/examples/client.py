"""Batches from `topolab data serve`, with pyarrow alone: python client.py grpc+tcp://127.0.0.1:4100 tiny [token]"""
import json, sys
import numpy as np
from pyarrow import flight

url, dataset, *token = sys.argv[1:]
client = flight.connect(url)
options = flight.FlightCallOptions(headers=[(b"authorization", b"Bearer " + t.encode()) for t in token])
loader = {"split": "train", "batch": 64, "seed": 0, "transforms": [{"flip": {"p": 0.5}}]}
for epoch in range(2):
    ticket = flight.Ticket(json.dumps({"dataset": dataset, "epoch": epoch, "loader": loader}))
    for part, _ in client.do_get(ticket, options):
        images = part["image"].to_numpy_ndarray()  # n, c, h, w
        labels, indices = part["label"].to_numpy(), part["index"].to_numpy()
        print(epoch, images.dtype, images.shape, int(images.sum(dtype=np.int64)), labels[:4], indices[:4])
