"""Post-training quantization timed against onnxruntime.quantization.quantize_static, side by side in one run.

    python benchmarks/quantize_static.py MODEL DATA [--samples 1000] [--repeats 5] [--batch 1] [--json FILE]

MODEL is a float model that takes images, such as ic_float.tflite (ResNet-8) or any .onnx; what is not ONNX is
written as ONNX first, so that both start from the same file. DATA is what `benchmarks/prepare.py` makes.

Both read that file, calibrate by the smallest and largest value on the same samples, quantize to int8 with a
scale per output channel, and write QDQ to a file. They take turns, and who is first alternates, so that other
load on the machine meets both. Printed are the medians and their ratio, of the time that passed and of that
which the processor spent on it (all threads together), which other load hardly changes.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnxruntime import quantization

from tinydeploy.api import load_model
from tinydeploy.backends.onnx import write_onnx
from tinydeploy.data import fit_samples, read_dataset
from tinydeploy.quantize import quantize


@dataclass(frozen=True)
class Task:
    """What both do.

    Attributes:
        x: float32 (samples, *shape of the model's input without its batch axis).
        batch: samples that ONNX Runtime takes at once; over 1 its model gets a batch axis of any length.
    """

    model: Path
    x: Any
    batch: int
    folder: Path


class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
    """The samples one batch after the other."""

    def __init__(self, name: str, x: Any, batch: int) -> None:
        self._parts = iter([{name: x[i : i + batch]} for i in range(0, len(x), batch)])

    def get_next(self) -> dict[str, Any] | None:
        return next(self._parts, None)


def ours(task: Task) -> Path:
    """Import, calibrate, quantize, write."""
    graph = load_model(task.model).graph
    value, layout = graph.value(graph.inputs[0]), graph.input_borders[0].layout
    held = task.x.reshape(-1, *value.shape) if layout is None else layout.to_held(task.x, value.shape)
    path = task.folder / "ours.onnx"
    path.write_bytes(write_onnx(quantize(graph, [held])))
    return path


def theirs(task: Task) -> Path:
    """The same by ONNX Runtime."""
    path = task.folder / "theirs.onnx"
    name = onnx.load(task.model).graph.input[0].name
    quantization.quantize_static(
        task.model if task.batch == 1 else task.model.with_name("dynamic.onnx"),
        path,
        Reader(name, task.x, task.batch),
        quant_format=quantization.QuantFormat.QDQ,
        activation_type=quantization.QuantType.QInt8,
        weight_type=quantization.QuantType.QInt8,
        per_channel=True,
        calibrate_method=quantization.CalibrationMethod.MinMax,
    )
    return path


def prepare(model: Path, data: Path, samples: int, batch: int, folder: Path) -> Task:
    loaded = load_model(model)
    path = folder / "float.onnx"
    path.write_bytes(model.read_bytes() if model.suffix == ".onnx" else write_onnx(loaded.graph))
    graph = load_model(path).graph
    x = fit_samples(graph, read_dataset(data)).inputs[0][:samples]
    if len(x) < samples:
        raise SystemExit(f"{data} holds {len(x)} samples, not {samples}")
    layout = graph.input_borders[0].layout
    given = x if layout is None else layout.to_source(x)
    if batch > 1:
        onnx.save(any_batch(onnx.load(path)), folder / "dynamic.onnx")
    return Task(path, np.ascontiguousarray(given.reshape(len(x), *given.shape[2:])), batch, folder)


@dataclass(frozen=True)
class Time:
    """Seconds by the clock, and seconds of the processor in all threads."""

    wall: float
    cpu: float


def any_batch(proto: Any) -> Any:
    """A model of batch 1 as one of any batch."""
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    shapes = {node.input[1] for node in proto.graph.node if node.op_type == "Reshape"}
    for tensor in proto.graph.initializer:
        if tensor.name in shapes:
            shape = onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.array([-1, *shape[1:]]), tensor.name))
    return proto


def timed(run: Callable[[Task], Path], task: Task) -> Time:
    wall, cpu = time.perf_counter(), time.process_time()
    run(task)
    return Time(time.perf_counter() - wall, time.process_time() - cpu)


def compare(task: Task, repeats: int) -> dict[str, Any]:
    """Times of each run; one of each goes before and is not counted."""
    timed(ours, task), timed(theirs, task)
    times: dict[str, list[Time]] = {"ours": [], "theirs": []}
    for i in range(repeats):
        pairs = [("ours", ours), ("theirs", theirs)]
        for name, run in pairs if i % 2 == 0 else pairs[::-1]:
            times[name].append(timed(run, task))
            print(f"{name:>7}: {times[name][-1].wall:.2f} s, {times[name][-1].cpu:.2f} s of CPU", flush=True)
    wall = {name: statistics.median(t.wall for t in values) for name, values in times.items()}
    cpu = {name: statistics.median(t.cpu for t in values) for name, values in times.items()}
    return {
        "samples": len(task.x),
        "batch_theirs": task.batch,
        "onnxruntime": onnxruntime.__version__,
        "times": {name: [asdict(t) for t in values] for name, values in times.items()},
        "median_wall": wall,
        "median_cpu": cpu,
        "ratio_wall": wall["ours"] / wall["theirs"],
        "ratio_cpu": cpu["ours"] / cpu["theirs"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    # Otherwise it advises to preprocess, which would only take longer.
    logging.getLogger().setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        task = prepare(given.model, given.data, given.samples, given.batch, Path(folder))
        result = compare(task, given.repeats)
    for what in ("wall", "cpu"):
        median = result[f"median_{what}"]
        print(
            f"{what}: median of {given.repeats}: ours {median['ours']:.2f} s, quantize_static"
            f" {median['theirs']:.2f} s, ratio {result[f'ratio_{what}']:.2f}"
        )
    if given.json is not None:
        given.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
