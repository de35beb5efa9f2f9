"""What pyarrow writes where we write the messages of `arrow_ipc.json`: run it beside that file, whose messages pyarrow reads here, too.

Each schema is an encapsulated message. Each batch has the metadata of its message, its body, and the values in it.
"""

import base64
import json

import pyarrow as pa

ours = json.load(open("arrow_ipc.json"))


def text(data):
    return base64.b64encode(bytes(data)).decode()


def of(message):
    return base64.b64decode(message)


def encapsulated(metadata, body=b""):
    metadata += bytes(-len(metadata) % 8)
    return pa.py_buffer(b"\xff\xff\xff\xff" + len(metadata).to_bytes(4, "little") + metadata + body)


def columns(values, size, metadata=None):
    """The fields of a flight; as an extension type the list's items could be null."""
    found = [pa.field("label", pa.uint32(), nullable=False), pa.field("index", pa.uint64(), nullable=False)]
    if values != "none":
        item = pa.field("item", {"u8": pa.uint8(), "f32": pa.float32()}[values], nullable=False)
        found.insert(0, pa.field("image", pa.list_(item, size), nullable=False, metadata=metadata))
    return found


def schema(case):
    size = 1
    for length in case["shape"]:
        size *= length
    names = ["V", "C", "H", "W"][4 - len(case["shape"]) :]
    tensor = json.dumps({"dim_names": names, "shape": case["shape"]}, separators=(",", ":"))
    metadata = {"ARROW:extension:metadata": tensor, "ARROW:extension:name": "arrow.fixed_shape_tensor"}
    written = pa.schema(columns(case["values"], size, metadata), metadata=case["metadata"]).serialize()
    read = [pa.ipc.read_schema(message) for message in (written, encapsulated(of(case["message"])))]
    assert read[0].equals(read[1], check_metadata=True), case["name"]
    if case["values"] != "none":
        kind = read[1].field("image").type
        assert isinstance(kind, pa.FixedShapeTensorType) and kind.shape == case["shape"] and kind.dim_names == names, kind
    return {**{key: case[key] for key in ("name", "values", "shape", "metadata")}, "message": text(written)}


def batch(name, values, rows, size):
    """Row `i` has the label `3i` and the index `2^40 + i`; the numbers of the images count up."""
    labels = pa.array([3 * row for row in range(rows)], pa.uint32())
    indices = pa.array([2**40 + row for row in range(rows)], pa.uint64())
    fields = columns(values, size)
    arrays = [labels, indices]
    if values != "none":
        flat = pa.array([number % 251 for number in range(rows * size)], fields[0].type.value_type)
        arrays.insert(0, pa.FixedSizeListArray.from_arrays(flat, type=fields[0].type))
    written = pa.record_batch(arrays, schema=pa.schema(fields))
    message = pa.ipc.read_message(written.serialize())
    return {"name": name, "values": values, "rows": rows, "size": size, "message": text(message.metadata), "body": text(message.body)}


def reads_ours(case):
    """Whether pyarrow finds in our batch what was put there: its body is aligned otherwise than pyarrow's."""
    rows, images = case["rows"], case["images"]
    if images is not None and images > 1 << 20:
        return
    aligned = lambda length: -(-length // 64) * 64
    padded = lambda data: data + bytes(aligned(len(data)) - len(data))
    wide = images is not None and images == 4 * case["numbers"] and rows > 0
    values = "none" if images is None else "f32" if wide else "u8"
    size = case["numbers"] // rows if rows and images is not None else 1
    labels = [3 * row for row in range(rows)]
    indices = [2**40 + row for row in range(rows)]
    body = padded(b"".join(label.to_bytes(4, "little") for label in labels))
    body += padded(b"".join(index.to_bytes(8, "little") for index in indices))
    pixels = bytes(byte % 63 for byte in range(images or 0))
    message = pa.ipc.read_message(encapsulated(of(case["message"]), padded(pixels) + body))
    read = pa.ipc.read_record_batch(message, pa.schema(columns(values, size)))
    read.validate(full=True)
    assert read.num_rows == rows and message.type == "record batch", case["name"]
    assert read.column("label").to_pylist() == labels and read.column("index").to_pylist() == indices, case["name"]
    if images is not None:
        assert read.column("image").flatten().buffers()[1].to_pybytes()[:images] == pixels, case["name"]


for case in ours["batches"]:
    reads_ours(case)
found = {
    "pyarrow": pa.__version__,
    "schemas": [schema(case) for case in ours["schemas"]],
    "batches": [
        batch("u8", "u8", 5, 12),
        batch("f32", "f32", 3, 16),
        batch("one row", "u8", 1, 5),
        batch("no rows", "u8", 0, 12),
        batch("without images", "none", 5, 0),
    ],
}
with open("pyarrow.json", "w") as file:
    json.dump(found, file, indent=1, ensure_ascii=False)
    file.write("\n")
