"""For each `<name>.onnx` in a folder: checks it, runs it on the samples in `<name>.<n>.in`, and writes the results to `<name>.<n>.out`."""

import pathlib
import sys

import numpy as np
import onnx
import onnxruntime

for path in sorted(pathlib.Path(sys.argv[1]).glob("*.onnx")):
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (source,), (result,) = session.get_inputs(), session.get_outputs()
    initializers = sorted(tensor.name for tensor in model.graph.initializer)
    print(path.stem, source.name, source.shape, result.name, result.shape, *initializers)
    for samples in sorted(path.parent.glob(f"{path.stem}.*.in")):
        xs = np.fromfile(samples, np.float32).reshape(-1, *source.shape[1:])
        (ys,) = session.run(None, {"input": xs})
        ys.astype(np.float32).tofile(samples.with_suffix(".out"))
