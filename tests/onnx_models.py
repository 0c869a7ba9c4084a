"""Small ONNX models for tests, built with onnx.helper, and ONNX Runtime to compare with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tinydeploy.data import source_outputs
from tinydeploy.engine import run
from tinydeploy.frontends.onnx import parse_onnx
from tinydeploy.ir.graph import Graph
from tinydeploy.ops.quantize import dequantize_array, quantize_array

FLOAT = TensorProto.FLOAT


def model(
    nodes: Sequence[Any],
    inputs: Mapping[str, Sequence[Any]],
    outputs: Sequence[str],
    constants: Mapping[str, Any] | None = None,
    *,
    opset: int = 17,
    types: Mapping[str, int] | None = None,
    microsoft: bool = False,
) -> bytes:
    """A model whose outputs have no stated shape; `types` names those that are not float."""
    types = types or {}
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info(n, types.get(n, FLOAT), list(s)) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, types.get(n, FLOAT), None) for n in outputs],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in (constants or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    if microsoft:
        opsets.append(helper.make_opsetid("com.microsoft", 1))
    made = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return made.SerializeToString()


def session(data: bytes, *, optimize: bool = True) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimize else levels.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def run_onnx(data: bytes, inputs: Sequence[Any], *, optimize: bool = True) -> list[Any]:
    """Outputs (samples, *shape) of ONNX Runtime, for inputs (samples, *shape), one sample at a time."""
    runtime = session(data, optimize=optimize)
    names = [i.name for i in runtime.get_inputs()]
    samples = [runtime.run(None, dict(zip(names, x, strict=True))) for x in zip(*inputs, strict=True)]
    return [np.stack(column) for column in zip(*samples, strict=True)]


def source_inputs(graph: Graph, samples: int, seed: int = 0) -> list[Any]:
    """Random data for each input in the source model's shape: normal floats, or every integer alike."""
    rng = np.random.default_rng(seed)
    arrays: list[Any] = []
    for name, border in zip(graph.inputs, graph.input_borders, strict=True):
        value = graph.value(name)
        shape = (samples, *(value.shape if border.layout is None else border.layout.shape))
        if border.is_float or value.dtype.is_float:
            arrays.append(rng.normal(0, 1, shape).astype(np.float32))
        else:
            low, high = value.dtype.limits
            arrays.append(rng.integers(low, high + 1, shape).astype(value.dtype.numpy))
    return arrays


def run_graph(graph: Graph, inputs: Sequence[Any]) -> list[Any]:
    """The engine behind the model's own borders: source layout and types in and out."""
    held = []
    for name, border, x in zip(graph.inputs, graph.input_borders, inputs, strict=True):
        value = graph.value(name)
        y = x if border.layout is None else border.layout.to_held(x, value.shape)
        held.append(quantize_array(y, value.quant, value.dtype) if border.is_float else y)
    results = source_outputs(graph, run(graph, held))
    return [
        dequantize_array(y, graph.value(n).quant) if b.is_float else y
        for n, b, y in zip(graph.outputs, graph.output_borders, results, strict=True)
    ]


def read(data: bytes) -> Graph:
    return parse_onnx(data, "test", "test.onnx")


def assert_matches(data: bytes, *, samples: int = 3, atol: float = 1e-4) -> Graph:
    """The float engine agrees with ONNX Runtime; returns the graph."""
    graph = read(data)
    inputs = source_inputs(graph, samples)
    for ours, theirs in zip(run_graph(graph, inputs), run_onnx(data, inputs), strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, atol=atol, rtol=1e-4)
    return graph


def kinds(graph: Graph) -> list[str]:
    return [node.op.kind for node in graph.nodes]
