"""Graphs to ONNX models: integer ones as QDQ, float ones as they are."""

from __future__ import annotations

from tinydeploy.backends.onnx_forms import native_bits
from tinydeploy.backends.onnx_model import ModelFile, opset_for
from tinydeploy.backends.onnx_operators import WRITERS, Place
from tinydeploy.backends.onnx_tensors import Tensors
from tinydeploy.errors import DeployError
from tinydeploy.ir.graph import Border, Graph, Node
from tinydeploy.ir.types import DType
from tinydeploy.ir.verify import site_of


def write_onnx(graph: Graph) -> bytes:
    """The bytes of an .onnx file that computes what `graph` computes; two calls give equal bytes.

    An integer graph is written with QuantizeLinear and DequantizeLinear around float operators (QDQ), its
    weights int8 and biases int32, or their stored form (see `onnx_forms`); `frontends.onnx.parse_onnx` reads
    the same integer network from it. Inputs
    and outputs have the source model's shape, type and order of axes. Images are NCHW inside.

    Raises:
        DeployError: an op, or one of its attributes, has no ONNX form.
    """
    import onnx  # noqa: PLC0415
    import onnx.helper  # noqa: PLC0415
    import onnx.numpy_helper  # noqa: PLC0415

    file = ModelFile(onnx, opset_for(native_bits(v.form) for v in graph.constants()))
    return _Writing(graph, file, Tensors(graph, file)).bytes()


class _Writing:
    """One graph on its way into a file."""

    def __init__(self, graph: Graph, file: ModelFile, tensors: Tensors) -> None:
        self._graph = graph
        self._file = file
        self._tensors = tensors

    def bytes(self) -> bytes:
        graph, file = self._graph, self._file
        # Borders come first, so that the names which the user knows stay theirs.
        inputs = [file.reserve(border.name) for border in graph.input_borders]
        outputs = [file.reserve(border.name) for border in graph.output_borders]
        for tensor, name, border in zip(inputs, graph.inputs, graph.input_borders, strict=True):
            self._input(tensor, name, border)
        for node in graph.nodes:
            self._node(node)
        for tensor, name, border in zip(outputs, graph.outputs, graph.output_borders, strict=True):
            self._output(tensor, name, border)
        return file.serialize(graph.name)

    def _input(self, tensor: str, name: str, border: Border) -> None:
        value = self._graph.value(name)
        shape = value.shape if border.layout is None else border.layout.shape
        self._file.input(tensor, DType.FLOAT32 if border.is_float else value.dtype, shape)
        if border.is_float:
            tensor = self._tensors.quantized(tensor, value, self._file.reserve(value.name))
        stored = self._tensors.from_source(tensor, value, border.layout)
        self._tensors.store(value, stored.name, stored.order)

    def _output(self, tensor: str, name: str, border: Border) -> None:
        value = self._graph.value(name)
        shape = value.shape if border.layout is None else border.layout.shape
        self._file.output(tensor, DType.FLOAT32 if border.is_float else value.dtype, shape)
        source = self._tensors.to_source(value, border.layout)
        if border.is_float:
            source = self._tensors.dequantized(source, value)
        if source in (b.name for b in self._graph.output_borders) or not self._file.rename(source, tensor):
            self._file.node("Identity", [source], tensor)

    def _node(self, node: Node) -> None:
        where = f"{self._graph.source or self._graph.name}: {node.op.kind} {node.name!r}"
        write = WRITERS.get(type(node.op))
        if write is None:
            raise DeployError("has no ONNX form", where=where, hint="export TFLite or C")
        try:
            write(Place(self._tensors, node, site_of(self._graph, node)))
        except DeployError as error:
            raise DeployError(error.fact, where=where, hint=error.hint) from None
