"""The runtimes that tests compare with; each function skips the test where its package is missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest


def run_micro(model: bytes, inputs: Sequence[Any], arena: int = 1 << 22) -> list[Any]:
    """Outputs (samples, *shape) of TensorFlow Lite Micro, for inputs (samples, *shape)."""
    runtime = pytest.importorskip("tflite_micro.python.tflite_micro.runtime")
    interpreter = runtime.Interpreter.from_bytes(model, arena_size=arena)
    samples: list[list[Any]] = []
    for i in range(len(inputs[0])):
        for index, x in enumerate(inputs):
            interpreter.set_input(x[i], index)
        interpreter.invoke()
        samples.append([])
        for index in range(interpreter_outputs(model)):
            samples[-1].append(interpreter.get_output(index))
    return [np.stack(column) for column in zip(*samples, strict=True)]


def interpreter_outputs(model: bytes) -> int:
    """The number of outputs, which the micro runtime does not tell."""
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    return int(schema.Model.GetRootAs(model, 0).Subgraphs(0).OutputsLength())


def run_lite(package: str, model: bytes, inputs: Sequence[Any]) -> list[Any]:
    """Outputs of TensorFlow Lite (`tflite_runtime` or `ai_edge_litert`) with its reference kernels."""
    module = pytest.importorskip(f"{package}.interpreter")
    resolver = module.OpResolverType.BUILTIN_REF
    interpreter = module.Interpreter(model_content=model, experimental_op_resolver_type=resolver)
    interpreter.allocate_tensors()
    samples: list[list[Any]] = []
    for i in range(len(inputs[0])):
        for detail, x in zip(interpreter.get_input_details(), inputs, strict=True):
            interpreter.set_tensor(detail["index"], x[i])
        interpreter.invoke()
        samples.append([interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()])
    return [np.stack(column) for column in zip(*samples, strict=True)]
