"""The nodes of a QDQ model each on its own: from the integers that go in to the integers that come out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, shape_inference
from onnx_models import session

from tinydeploy.ir.graph import Graph


@dataclass(frozen=True)
class Alone:
    """A quantized operator with its DequantizeLinear and QuantizeLinear, cut out of a model."""

    data: bytes
    inputs: tuple[str, ...]
    output: str

    def run(self, values: Mapping[str, Any], *, optimize: bool) -> Any:
        """(samples, *shape), for `values` of every tensor (samples, *shape)."""
        runtime = session(self.data, optimize=optimize)
        columns = [values[name] for name in self.inputs]
        rows = zip(*columns, strict=True)
        return np.stack([runtime.run(None, dict(zip(self.inputs, row, strict=True)))[0] for row in rows])


def nodes_alone(model: Any) -> Iterator[Alone]:
    """For each QuantizeLinear of a QDQ model all between it and the integers that it is computed of."""
    graph = shape_inference.infer_shapes(model, strict_mode=True).graph
    makers = {output: node for node in graph.node for output in node.output}
    constants = {c.name: c for c in graph.initializer}
    types = {v.name: v for v in (*graph.input, *graph.value_info, *graph.output)}
    for node in graph.node:
        if node.op_type != "QuantizeLinear":
            continue
        cone: list[Any] = []
        ends: dict[str, None] = {}
        waiting = [node.input[0]]
        while waiting:
            name = waiting.pop()
            maker = makers.get(name)
            if name in constants:
                continue
            if maker is None or maker.op_type == "QuantizeLinear":
                ends[name] = None
            elif maker not in cone:
                cone.append(maker)
                waiting += maker.input
        cone = [n for n in graph.node if n in (*cone, node)]
        used = {name for n in cone for name in n.input if name in constants}
        part = helper.make_graph(
            cone,
            "node",
            [types[name] for name in ends],
            [types[node.output[0]]],
            [constants[name] for name in sorted(used)],
        )
        made = helper.make_model(part, opset_imports=model.opset_import, ir_version=model.ir_version)
        onnx.checker.check_model(made)
        yield Alone(made.SerializeToString(), tuple(ends), node.output[0])


def source_order(graph: Graph, values: Mapping[str, Any]) -> dict[str, Any]:
    """The engine's values as ONNX holds them: images NCHW, inputs and outputs as the model shows them."""
    arrays = {n: np.moveaxis(a, -1, 2) if a.ndim == 5 else a for n, a in values.items()}
    for names, borders in ((graph.inputs, graph.input_borders), (graph.outputs, graph.output_borders)):
        for name, border in zip(names, borders, strict=True):
            held = values[name]
            arrays[border.name] = held if border.layout is None else border.layout.to_source(held)
    return {n: np.ascontiguousarray(a) for n, a in arrays.items()}
