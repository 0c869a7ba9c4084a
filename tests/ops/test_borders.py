"""QUANTIZE and DEQUANTIZE at the border of a model become a property of the border, and nothing else does."""

from __future__ import annotations

from graphs import single_op_graph
from tflite_edit import new_file

from tinydeploy.backends.tflite import write_tflite
from tinydeploy.backends.tflite_model import Code
from tinydeploy.frontends.tflite import parse_tflite
from tinydeploy.ir.graph import Border
from tinydeploy.ir.types import DType, Quantization
from tinydeploy.passes.borders import strip_borders

INT8 = DType.INT8
Q = Quantization((0.5,), (3,))


def wrapped(input_readers: int = 1) -> bytes:
    """A float model around an int8 RELU."""
    file = new_file()
    x, y = file.tensor("x", DType.FLOAT32, (1, 4)), file.tensor("y", DType.FLOAT32, (1, 4))
    a, b = file.tensor("a", INT8, (1, 4), Q), file.tensor("b", INT8, (1, 4), Q)
    file.operator(Code("QUANTIZE", 1), [x], a)
    file.operator(Code("RELU", 2), [a], b)
    file.operator(Code("DEQUANTIZE", 2), [b], y)
    outputs = [y]
    if input_readers > 1:
        c = file.tensor("c", DType.FLOAT32, (1, 4))
        file.operator(Code("RELU", 1), [x], c)
        outputs.append(c)
    return file.serialize([x], outputs)


def test_float_borders_become_properties_of_the_border() -> None:
    graph = parse_tflite(wrapped(), "m", "model.tflite")
    assert (graph.inputs, graph.outputs) == (("a",), ("b",))
    assert graph.input_borders == (Border("x", is_float=True),)
    assert graph.output_borders == (Border("y", is_float=True),)
    assert [n.op.kind for n in graph.nodes] == ["RELU"]
    assert set(graph.values) == {"a", "b"}


def test_a_float_input_that_something_else_reads_stays() -> None:
    graph = parse_tflite(wrapped(input_readers=2), "m", "model.tflite")
    assert graph.inputs == ("x",)
    assert graph.input_borders == (Border("x"),)
    assert graph.output_borders[0] == Border("y", is_float=True)


def test_a_change_of_integer_type_at_the_border_stays_an_op() -> None:
    graph = parse_tflite(write_tflite(single_op_graph("QUANTIZE")), "m", "model.tflite")
    assert [n.op.kind for n in graph.nodes] == ["QUANTIZE"]
    assert graph.value(graph.inputs[0]).dtype is DType.UINT8


def test_a_graph_with_nothing_to_strip_is_returned_as_it_is() -> None:
    graph = single_op_graph("CONV_2D")
    assert strip_borders(graph) is graph
