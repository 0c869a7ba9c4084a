"""Graphs to TFLite models, for TensorFlow Lite, its Micro runtime and for reading back."""

from __future__ import annotations

from dataclasses import replace

from tinydeploy.backends.tflite_forms import unwritable
from tinydeploy.backends.tflite_layout import write_to_held, write_to_source
from tinydeploy.backends.tflite_model import Code, ModelFile
from tinydeploy.backends.tflite_operators import WRITERS, Place, bias_quantization
from tinydeploy.errors import DeployError
from tinydeploy.ir.graph import Border, Graph, Node
from tinydeploy.ir.types import DType, Quantization
from tinydeploy.ir.verify import site_of
from tinydeploy.ops import Conv2D, DepthwiseConv2D, FullyConnected


def write_tflite(graph: Graph) -> bytes:
    """The bytes of a .tflite file that computes what `graph` computes; two calls give equal bytes.

    Integer or float32. Inputs and outputs have the source model's shape, type and order of axes: a float
    border becomes QUANTIZE or DEQUANTIZE again, another order a TRANSPOSE. Where TFLite has no form for
    an attribute, operators in front of the op carry it: PAD for uneven padding, QUANTIZE for inputs of a
    concatenation that differ in scale. A CONV_2D without a bias gets one of zeros.

    Weights of four bits become INT4.

    Raises:
        DeployError: an op, one of its attributes, or how a tensor is stored has no TFLite form.
    """
    refused = unwritable(graph)
    if refused is not None:
        raise DeployError(
            refused, where=graph.source or graph.name, hint="export ONNX or C, which carry this model"
        )
    from ai_edge_litert import schema_py_generated as schema  # noqa: PLC0415

    return _Writing(graph, ModelFile(schema)).bytes()


class _Writing:
    """One graph on its way into a file."""

    def __init__(self, graph: Graph, file: ModelFile) -> None:
        self._graph = graph
        self._file = file
        self._numbers: dict[str, int] = {}
        self._bias_scales = _missing_bias_scales(graph)

    def bytes(self) -> bytes:
        graph, file = self._graph, self._file
        # Borders come first, so that the names which the user knows stay theirs.
        inputs = [self._border(*pair) for pair in zip(graph.inputs, graph.input_borders, strict=True)]
        outputs = [self._border(*pair) for pair in zip(graph.outputs, graph.output_borders, strict=True)]
        for value in graph.values.values():
            if value.name not in self._numbers:
                quantization = self._bias_scales.get(value.name, value.quantization)
                self._numbers[value.name] = file.value(replace(value, quantization=quantization))
        for name, border, number in zip(graph.inputs, graph.input_borders, inputs, strict=True):
            self._input(name, border, number)
        for node in graph.nodes:
            self._node(node)
        for name, border, number in zip(graph.outputs, graph.output_borders, outputs, strict=True):
            self._output(name, border, number)
        return file.serialize(inputs, outputs)

    def _border(self, name: str, border: Border) -> int:
        """The tensor that the file shows as input or output."""
        value = self._graph.value(name)
        shape = value.shape if border.layout is None else border.layout.shape
        if border.is_float:
            return self._file.tensor(border.name, DType.FLOAT32, shape)
        if border.layout is not None:
            return self._file.tensor(border.name, value.dtype, shape, value.quantization)
        if name not in self._numbers:
            self._numbers[name] = self._file.value(value, border.name)
        return self._numbers[name]

    def _in_source_order(self, name: str, border: Border) -> int:
        """The integers of a float border, before an input is transposed and after an output is."""
        value = self._graph.value(name)
        if border.layout is None:
            return self._numbers[name]
        label = f"{name}/source"
        return self._file.tensor(label, value.dtype, border.layout.shape, value.quantization)

    def _input(self, name: str, border: Border, number: int) -> None:
        file, value = self._file, self._graph.value(name)
        if border.is_float:
            integers = self._in_source_order(name, border)
            file.operator(Code("QUANTIZE", 1), [number], integers, file.schema.QuantizeOptionsT())
            number = integers
        if border.layout is not None:
            write_to_held(file, value, border.layout, number, self._numbers[name])

    def _output(self, name: str, border: Border, number: int) -> None:
        file, value = self._file, self._graph.value(name)
        integers = self._in_source_order(name, border) if border.is_float else number
        if border.layout is not None:
            write_to_source(file, value, border.layout, self._numbers[name], integers)
        if border.is_float:
            version = 2 if value.dtype is DType.INT8 else 1
            options = file.schema.DequantizeOptionsT()
            file.operator(Code("DEQUANTIZE", version), [integers], number, options)

    def _node(self, node: Node) -> None:
        where = f"{self._graph.source or self._graph.name}: {node.op.kind} {node.name!r}"
        write = WRITERS.get(type(node.op))
        if write is None:
            raise DeployError(
                "has no TFLite form", where=where, hint="export ONNX or C, which carry this model"
            )
        inputs = [-1 if name is None else self._numbers[name] for name in node.inputs]
        while inputs[-1] == -1:
            inputs.pop()
        site = site_of(self._graph, node)
        place = Place(self._file, node, site, tuple(inputs), self._numbers[node.outputs[0]])
        try:
            write(place)
        except DeployError as error:
            raise DeployError(error.fact, where=where, hint=error.hint) from None


def _missing_bias_scales(graph: Graph) -> dict[str, Quantization]:
    """S_in * S_w for each integer bias without a quantization: the runtimes compare it with that product."""
    scales = {}
    for node in graph.nodes:
        if not isinstance(node.op, Conv2D | DepthwiseConv2D | FullyConnected) or len(node.inputs) < 3:
            continue
        x, weights, bias = graph.node_inputs(node)[:3]
        if bias is None or bias.dtype.is_float or bias.quantization is not None:
            continue
        assert x is not None
        assert weights is not None
        scales[bias.name] = bias_quantization(x, weights)
    return scales
