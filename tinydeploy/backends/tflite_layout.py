"""The source model's order of axes at the borders of a TFLite file."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinydeploy.backends.tflite_model import Code, ModelFile
from tinydeploy.ir.graph import Layout
from tinydeploy.ir.op import Shape
from tinydeploy.ir.types import DType, Value


def write_to_held(file: ModelFile, value: Value, layout: Layout, source: int, held: int) -> None:
    """Operators from the tensor in the source's order to the one that the layers read."""
    permuted = tuple(layout.split[a] for a in layout.permutation)
    steps = [
        _Step("RESHAPE", layout.split),
        _Step("TRANSPOSE", permuted, layout.permutation),
        _Step("RESHAPE", value.shape),
    ]
    _write(file, value, layout.shape, steps, source, held)


def write_to_source(file: ModelFile, value: Value, layout: Layout, held: int, source: int) -> None:
    """Operators from what a layer computed to the tensor in the source's order."""
    order = layout.permutation
    inverse = tuple(sorted(range(len(order)), key=order.__getitem__))
    steps = [
        _Step("RESHAPE", tuple(layout.split[a] for a in order)),
        _Step("TRANSPOSE", layout.split, inverse),
        _Step("RESHAPE", layout.shape),
    ]
    _write(file, value, value.shape, steps, held, source)


@dataclass(frozen=True)
class _Step:
    kind: str
    shape: Shape
    permutation: tuple[int, ...] = ()


def _write(file: ModelFile, value: Value, shape: Shape, steps: list[_Step], source: int, target: int) -> None:
    """The steps that change something; the transposition always stands, so that reading finds it."""
    needed: list[_Step] = []
    for step in steps:
        if step.kind == "TRANSPOSE" or step.shape != shape:
            needed.append(step)
        shape = step.shape
    for i, step in enumerate(needed):
        last = i == len(needed) - 1
        name = f"{value.name}/{step.kind.lower()}d"
        output = target if last else file.tensor(name, value.dtype, step.shape, value.quantization)
        _operator(file, value, step, source, output)
        source = output


def _operator(file: ModelFile, value: Value, step: _Step, source: int, output: int) -> None:
    if step.kind == "RESHAPE":
        shape = np.array(step.shape, np.int32)
        options = file.schema.ReshapeOptionsT()
        options.newShape = shape
        numbers = [source, file.parameter(f"{value.name}/shape", shape)]
        file.operator(Code("RESHAPE", 1), numbers, output, options)
        return
    order = file.parameter(f"{value.name}/permutation", np.array(step.permutation, np.int32))
    code = Code("TRANSPOSE", _transpose_version(value.dtype, len(step.shape)))
    file.operator(code, [source, order], output, file.schema.TransposeOptionsT())


def _transpose_version(dtype: DType, rank: int) -> int:
    if rank > 4:
        return 6 if rank > 5 else 4
    return 2 if dtype is DType.INT8 else 1
