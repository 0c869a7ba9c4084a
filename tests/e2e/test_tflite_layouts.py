"""A TFLite file keeps the source model's order of axes: transposed at its borders, folded when it is read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from graphs import GraphBuilder, conv_2d, every_op_graph, fully_connected, reshape, single_op_graph
from interpreters import run_lite, run_micro
from onnx_models import kinds, run_graph, source_inputs
from tflite_edit import new_file, schema

from tinydeploy.backends.tflite import write_tflite
from tinydeploy.backends.tflite_model import Code
from tinydeploy.errors import DeployError
from tinydeploy.frontends.tflite import parse_tflite
from tinydeploy.ir.graph import Border, Graph, Layout
from tinydeploy.ir.show import show
from tinydeploy.ir.types import DType, Quantization

NCHW = Layout((1, 4, 12, 10), (1, 4, 12, 10), (0, 2, 3, 1))
LAYOUTS = {
    "nchw": NCHW,
    "flat nchw": Layout((1, 480), (1, 4, 12, 10), (0, 2, 3, 1)),
    "flat": Layout((480,), (4, 120), (1, 0)),
    "columns": Layout((1, 4, 120), (1, 4, 120), (0, 2, 1)),
}
Q = Quantization((0.5,), (3,))


def bordered(layout: Layout | None, *, is_float: bool) -> Graph:
    """A network of every op with images as input."""
    return replace(
        every_op_graph(2),
        input_borders=(Border("image", is_float, layout),),
        output_borders=(Border("classes", is_float), Border("scores", is_float)),
    )


def mapped(*, is_float: bool, float_border: bool = False, branches: bool = False) -> Graph:
    """A convolution from NCHW to NCHW; with `branches` its result feeds a second output too."""
    b = GraphBuilder(1, is_float=is_float)
    y = conv_2d(b, shape=(1, 7, 6, 4))
    graph = b.graph(y, conv_2d(b, x=y, outputs=3)) if branches else b.graph(y)

    def border(name: str, value: str) -> Border:
        n, h, w, c = graph.value(value).shape
        return Border(name, float_border, Layout((n, c, h, w), (n, c, h, w), (0, 2, 3, 1)))

    return replace(
        graph,
        input_borders=(border("image", graph.inputs[0]),),
        output_borders=tuple(border(f"map_{i}", v) for i, v in enumerate(graph.outputs)),
    )


def read(data: bytes) -> Graph:
    return parse_tflite(data, "test", "test.tflite")


def shapes(data: bytes) -> list[tuple[int, ...]]:
    """Of the file's inputs and outputs."""
    subgraph = schema.Model.GetRootAs(data, 0).Subgraphs(0)
    numbers = [*subgraph.InputsAsNumpy(), *subgraph.OutputsAsNumpy()]
    return [tuple(subgraph.Tensors(n).ShapeAsNumpy().tolist()) for n in numbers]


def operators(data: bytes) -> list[str]:
    names = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
    model = schema.Model.GetRootAs(data, 0)
    codes = [names[model.OperatorCodes(i).BuiltinCode()] for i in range(model.OperatorCodesLength())]
    subgraph = model.Subgraphs(0)
    return [codes[subgraph.Operators(i).OpcodeIndex()] for i in range(subgraph.OperatorsLength())]


def assert_agree(graph: Graph, ours: list[Any], theirs: list[Any]) -> None:
    """Bit for bit; real numbers to rounding."""
    for border, a, b in zip(graph.output_borders, ours, theirs, strict=True):
        shaped = np.asarray(b).reshape(a.shape)
        real = border.is_float or a.dtype == np.float32
        assert np.allclose(a, shaped, atol=1e-5) if real else np.array_equal(a, shaped)


@pytest.mark.parametrize("is_float", [True, False], ids=["float border", "int8 border"])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_inputs_keep_the_source_models_shape_and_micro_computes_the_same(
    layout: Layout, is_float: bool
) -> None:
    graph = bordered(layout, is_float=is_float)
    data = write_tflite(graph)
    assert shapes(data)[0] == layout.shape
    assert operators(data).count("TRANSPOSE") == 1
    back, x = read(data), source_inputs(graph, 4)
    assert_agree(graph, run_graph(graph, x), run_micro(data, x))
    assert_agree(graph, run_graph(graph, x), run_graph(back, x))
    assert back.input_borders == graph.input_borders
    assert "TRANSPOSE" not in kinds(back)


@pytest.mark.parametrize("package", ["tflite_runtime", "ai_edge_litert"])
def test_tensorflow_lite_takes_the_source_models_shape(package: str) -> None:
    graph = mapped(is_float=True)
    x = source_inputs(graph, 2)
    assert_agree(graph, run_graph(graph, x), run_lite(package, write_tflite(graph), x))


@pytest.mark.parametrize(
    "given",
    [{"is_float": True}, {"is_float": False}, {"is_float": False, "float_border": True}],
    ids=["float", "int8", "int8, float border"],
)
@pytest.mark.parametrize("branches", [False, True], ids=["one output", "an output that is read too"])
def test_images_in_and_out_keep_their_order(given: dict[str, bool], branches: bool) -> None:
    graph = mapped(**given, branches=branches)
    data = write_tflite(graph)
    assert shapes(data)[:2] == [(1, 4, 7, 6), (1, 6, 7, 6)]
    back, x = read(data), source_inputs(graph, 3)
    assert_agree(graph, run_graph(graph, x), run_micro(data, x))
    assert_agree(graph, run_graph(graph, x), run_graph(back, x))
    assert kinds(back) == kinds(graph)
    assert back.input_borders == graph.input_borders
    assert back.output_borders == graph.output_borders
    assert write_tflite(read(data)) == write_tflite(read(write_tflite(read(data))))


def test_a_float_border_keeps_the_names_inside() -> None:
    graph = bordered(NCHW, is_float=True)
    assert show(read(write_tflite(graph))) == show(graph)


def test_a_sequence_keeps_three_axes() -> None:
    graph = single_op_graph("CONV_2D", 3, shape=(1, 1, 20, 4), kernel=(1, 3))
    layout = Layout((1, 4, 20), (1, 4, 20), (0, 2, 1))
    graph = replace(graph, input_borders=(Border("x", False, layout),))
    data = write_tflite(graph)
    assert shapes(data)[0] == (1, 4, 20)
    back, x = read(data), source_inputs(graph, 3)
    assert kinds(back) == ["CONV_2D"]
    assert back.input_borders == graph.input_borders
    assert_agree(graph, run_graph(graph, x), run_micro(data, x))


def test_flattening_behind_the_border_stays_the_networks_own() -> None:
    b = GraphBuilder(4)
    x = b.input((1, 5, 4, 3))
    graph = b.graph(fully_connected(b, x=reshape(b, x=x, to=(1, 60))))
    layout = Layout((1, 3, 5, 4), (1, 3, 5, 4), (0, 2, 3, 1))
    graph = replace(graph, input_borders=(Border("input_0", False, layout),))
    back = read(write_tflite(graph))
    assert kinds(back) == ["RESHAPE", "FULLY_CONNECTED"]
    assert back.value(back.inputs[0]).shape == (1, 5, 4, 3)


def transposed_model(*, quantize_first: bool) -> bytes:
    """Float NCHW to int8 NHWC, then a RELU: as other converters write it, in either order."""
    file = new_file()
    x = file.tensor("x", DType.FLOAT32, (1, 3, 4, 5))
    held = file.tensor("held", DType.INT8, (1, 4, 5, 3), Q)
    y = file.tensor("y", DType.INT8, (1, 4, 5, 3), Q)
    order = file.parameter("order", np.array([0, 2, 3, 1], np.int32))
    if quantize_first:
        middle = file.tensor("middle", DType.INT8, (1, 3, 4, 5), Q)
        file.operator(Code("QUANTIZE", 1), [x], middle)
        file.operator(Code("TRANSPOSE", 2), [middle, order], held)
    else:
        middle = file.tensor("middle", DType.FLOAT32, (1, 4, 5, 3))
        file.operator(Code("TRANSPOSE", 1), [x, order], middle)
        file.operator(Code("QUANTIZE", 1), [middle], held)
    file.operator(Code("RELU", 2), [held], y)
    return file.serialize([x], [y])


@pytest.mark.parametrize("quantize_first", [True, False])
def test_a_foreign_file_may_quantize_before_or_behind_its_transposition(quantize_first: bool) -> None:
    data = transposed_model(quantize_first=quantize_first)
    graph = read(data)
    assert kinds(graph) == ["RELU"]
    layout = Layout((1, 3, 4, 5), (1, 3, 4, 5), (0, 2, 3, 1))
    assert graph.input_borders == (Border("x", True, layout),)
    x = source_inputs(graph, 3)
    assert_agree(graph, run_graph(graph, x), run_micro(data, x))


def chain(*steps: tuple[str, tuple[int, ...]], outputs: int = 1) -> bytes:
    """RELU between x and y, with TRANSPOSE or RESHAPE to a shape behind it; the last `outputs` are shown."""
    file = new_file()
    x, y = file.tensor("x", DType.INT8, (1, 2, 3, 4), Q), file.tensor("y", DType.INT8, (1, 2, 3, 4), Q)
    file.operator(Code("RELU", 2), [x], y)
    shape, made = (1, 2, 3, 4), [y]
    for i, (kind, argument) in enumerate(steps):
        after = tuple(shape[a] for a in argument) if kind == "TRANSPOSE" else argument
        made.append(file.tensor(f"t{i}", DType.INT8, after, Q))
        parameter = file.parameter(f"p{i}", np.array(argument, np.int32))
        source = made[-2] if outputs == 1 else y
        file.operator(Code(kind, 2 if kind == "TRANSPOSE" else 1), [source, parameter], made[-1])
        shape = after if outputs == 1 else shape
    return file.serialize([x], made[-outputs:])


def test_transpositions_in_a_row_are_one_layout() -> None:
    data = chain(("TRANSPOSE", (0, 3, 1, 2)), ("TRANSPOSE", (0, 1, 3, 2)), ("RESHAPE", (1, 24)))
    graph = read(data)
    assert kinds(graph) == ["RELU"]
    x = source_inputs(graph, 3)
    assert_agree(graph, run_graph(graph, x), run_micro(data, x))


def test_a_value_that_two_outputs_show_in_other_orders_is_refused_by_name() -> None:
    data = chain(("TRANSPOSE", (0, 3, 1, 2)), ("TRANSPOSE", (0, 1, 3, 2)), outputs=2)
    with pytest.raises(DeployError, match="stands between layers") as caught:
        read(data)
    assert "TRANSPOSE 't1'" in caught.value.where


def test_a_transposition_between_layers_is_refused_by_name() -> None:
    file = new_file()
    names = ["x", "a", "b", "y"]
    tensors = [
        file.tensor(n, DType.INT8, s, Q)
        for n, s in zip(names, [(1, 6, 4)] * 2 + [(1, 4, 6)] * 2, strict=True)
    ]
    order = file.parameter("order", np.array([0, 2, 1], np.int32))
    file.operator(Code("RELU", 2), [tensors[0]], tensors[1])
    file.operator(Code("TRANSPOSE", 2), [tensors[1], order], tensors[2])
    file.operator(Code("RELU6", 2), [tensors[2]], tensors[3])
    with pytest.raises(DeployError, match=r"permutation \(0, 2, 1\)") as caught:
        read(file.serialize([tensors[0]], [tensors[3]]))
    assert caught.value.where == "test.tflite: TRANSPOSE 'b'"


@pytest.mark.parametrize(
    ("permutation", "word"),
    [((0, 1, 1, 2), "does not fit"), ((0, 1, 2), "3 axes"), ((0, 1, 2, 9), "does not fit")],
)
def test_a_permutation_that_is_none_is_refused(permutation: tuple[int, ...], word: str) -> None:
    file = new_file()
    x, y = file.tensor("x", DType.INT8, (1, 2, 3, 4), Q), file.tensor("y", DType.INT8, (1, 2, 3, 4), Q)
    order = file.parameter("order", np.array(permutation, np.int32))
    file.operator(Code("TRANSPOSE", 2), [x, order], y)
    with pytest.raises(DeployError, match=word):
        read(file.serialize([x], [y]))


def test_a_transposition_that_changes_the_scale_is_refused() -> None:
    file = new_file()
    x = file.tensor("x", DType.INT8, (1, 2, 3, 4), Q)
    t = file.tensor("t", DType.INT8, (1, 3, 4, 2), Quantization((0.25,), (3,)))
    y = file.tensor("y", DType.INT8, (1, 3, 4, 2), Quantization((0.25,), (3,)))
    order = file.parameter("order", np.array((0, 2, 3, 1), np.int32))
    file.operator(Code("TRANSPOSE", 2), [x, order], t)
    file.operator(Code("RELU", 2), [t], y)
    with pytest.raises(DeployError, match="scale"):
        read(file.serialize([x], [y]))
