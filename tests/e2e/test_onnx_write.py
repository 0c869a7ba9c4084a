"""A written ONNX model passes the checker, runs in ONNX Runtime, and reads back as the same network.

The rule for integer models: each node, fed the engine's own inputs, is within one step of the engine in ONNX
Runtime, with its graph optimisation (from level EXTENDED on, layers without a clamp become QLinear operators
and run in integers) and without it (everything in float between the quantizers).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from graphs import MAKERS, every_op_graph, random_inputs, single_op_graph
from onnx_models import kinds, read, run_graph, run_onnx, source_inputs
from shared import DATA, MODELS, golden, model_path

from tinydeploy.backends.onnx import write_onnx
from tinydeploy.engine import run, run_all
from tinydeploy.errors import DeployError
from tinydeploy.frontends.tflite import read_tflite
from tinydeploy.ir.graph import Border, Graph, Layout, Node
from tinydeploy.ir.types import DType
from tinydeploy.ir.verify import verify
from tinydeploy.ops import Activation, Padding
from tinydeploy.passes.constants import fold_constants

CASES: list[tuple[str, dict[str, Any]]] = [
    *((kind, {}) for kind in MAKERS),
    ("CONV_2D", {"groups": 2}),
    ("CONV_2D", {"per_channel": False, "padding": "valid", "bias": False}),
    ("CONV_2D", {"dilations": (2, 2)}),
    ("CONV_2D", {"strides": (2, 2), "activation": Activation.RELU6}),
    ("CONV_2D", {"padding": Padding(2, 0, 1, 1), "activation": Activation.RELU_N1_TO_1}),
    ("DEPTHWISE_CONV_2D", {"multiplier": 3}),
    ("DEPTHWISE_CONV_2D", {"dilations": (2, 1), "bias": False, "activation": Activation.RELU}),
    ("FULLY_CONNECTED", {"bias": False, "activation": Activation.RELU}),
    ("FULLY_CONNECTED", {"per_channel": True}),
    ("FULLY_CONNECTED", {"keep_dims": True, "shape": (1, 3, 20), "per_channel": True}),
    ("FULLY_CONNECTED", {"shape": (1, 3, 4, 20)}),
    ("MAX_POOL_2D", {"padding": Padding(1, 0, 1, 0), "activation": Activation.RELU}),
    ("AVERAGE_POOL_2D", {"padding": "same", "kernel": (3, 3), "activation": Activation.RELU}),
    ("ADD", {"shapes": ((1, 5, 4, 3), (1, 1, 1, 3)), "activation": Activation.RELU}),
    ("ADD", {"shapes": ((1, 5, 4, 3), (3,))}),
    ("MUL", {"shapes": ((1, 5, 4, 3), (1, 5, 1, 1))}),
    ("CONCATENATION", {"equal_scales": False}),
    ("CONCATENATION", {"axis": 1, "shapes": ((1, 5, 4, 3), (1, 2, 4, 3))}),
    ("RESHAPE", {"to": (1, 4, 5, 3)}),
    ("PAD", {"value": 7}),
    ("PAD", {"shape": (1, 6), "paddings": ((0, 0), (2, 1))}),
    ("MEAN", {"axes": (3,), "keep_dims": True}),
    ("MEAN", {"axes": (1,)}),
    ("SOFTMAX", {"shape": (1, 4, 3, 5)}),
    ("RELU", {"activation": Activation.RELU6, "rescale": 1.7}),
    ("QUANTIZE", {"source": DType.INT8, "target": DType.UINT8}),
]

NCHW = Layout((1, 4, 12, 10), (1, 4, 12, 10), (0, 2, 3, 1))


def label(case: Any) -> str:
    if isinstance(case, bool):
        return "float" if case else "int8"
    return case if isinstance(case, str) else ",".join(map(str, case))


def written(graph: Graph) -> bytes:
    """The model, checked with strict shape inference."""
    verify(graph)
    data = write_onnx(graph)
    onnx.checker.check_model(data, full_check=True)
    assert data == write_onnx(graph)
    return data


def steps(ours: Any, theirs: Any) -> int:
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    return int(np.abs(ours.astype(np.int64) - theirs.astype(np.int64)).max())


def assert_same_network(graph: Graph, data: bytes, *, exact: bool = True) -> Graph:
    """Reading back gives the same outputs bit by bit, and the same borders."""
    back = read(data)
    x = source_inputs(graph, 4, seed=2)
    for a, b in zip(run_graph(graph, x), run_graph(back, x), strict=True):
        assert a.dtype == b.dtype
        assert np.array_equal(a, b) if exact else np.allclose(a, b, atol=1e-4)
    assert [b.name for b in back.input_borders] == [b.name for b in graph.input_borders]
    assert [b.name for b in back.output_borders] == [b.name for b in graph.output_borders]
    assert [b.is_float for b in back.output_borders] == [b.is_float for b in graph.output_borders]
    return back


@pytest.mark.parametrize("optimize", [True, False], ids=["optimized", "plain"])
@pytest.mark.parametrize(("kind", "given"), CASES, ids=label)
def test_an_integer_op_is_within_one_step_and_reads_back_bit_for_bit(
    kind: str, given: dict[str, Any], optimize: bool
) -> None:
    graph = single_op_graph(kind, 5, **given)
    data = written(graph)
    x = random_inputs(graph, 6, seed=1)
    for ours, theirs in zip(run(graph, x), run_onnx(data, x, optimize=optimize), strict=True):
        assert steps(ours, theirs) <= 1
    back = assert_same_network(graph, data)
    if kind not in ("RESHAPE", "QUANTIZE"):
        assert [k for k in kinds(back) if k != "RESHAPE"] == [kind]


@pytest.mark.parametrize(("kind", "given"), [case for case in CASES if case[0] != "QUANTIZE"], ids=label)
def test_a_float_op_agrees_and_reads_back(kind: str, given: dict[str, Any]) -> None:
    graph = single_op_graph(kind, 5, is_float=True, **given)
    data = written(graph)
    x = random_inputs(graph, 4, seed=1)
    for ours, theirs in zip(run(graph, x), run_onnx(data, x), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=1e-4)
    assert_same_network(graph, data, exact=False)


@pytest.mark.parametrize("optimize", [True, False], ids=["optimized", "plain"])
def test_a_float_network_of_every_op(optimize: bool) -> None:
    graph = every_op_graph(3, is_float=True)
    data = written(graph)
    x = random_inputs(graph, 6)
    for ours, theirs in zip(run(graph, x), run_onnx(data, x, optimize=optimize), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert kinds(assert_same_network(graph, data, exact=False)) == kinds(graph)


def cut(graph: Graph, node: Node) -> Graph:
    """One node as a graph of its own, with the engine's values as inputs."""
    names = {n for n in (*node.inputs, *node.outputs) if n is not None}
    flowing = [n for n in dict.fromkeys(node.inputs) if n is not None and not graph.value(n).is_constant]
    values = {n: graph.value(n) for n in names}
    return Graph("node", values, (node,), tuple(flowing), node.outputs, source="node")


def assert_nodes_within_one_step(graph: Graph, samples: int) -> None:
    values = run_all(graph, random_inputs(graph, samples, seed=4))
    for node in graph.nodes:
        part = cut(graph, node)
        data = write_onnx(part)
        x = [np.ascontiguousarray(values[n]) for n in part.inputs]
        for optimize in (True, False):
            (theirs,) = run_onnx(data, x, optimize=optimize)
            assert steps(values[node.outputs[0]], theirs) <= 1, f"{node.name}, optimize={optimize}"


@pytest.mark.parametrize("seed", range(4))
def test_each_node_of_a_network_is_within_one_step(seed: int) -> None:
    graph = every_op_graph(seed)
    assert_nodes_within_one_step(graph, 4)
    assert kinds(assert_same_network(graph, written(graph))) == kinds(graph)


def bordered(layout: Layout | None, *, is_float: bool) -> Graph:
    graph = every_op_graph(2)
    return replace(
        graph,
        input_borders=(Border("image", is_float, layout),),
        output_borders=(Border("classes", is_float), Border("scores", is_float)),
    )


@pytest.mark.parametrize("is_float", [True, False], ids=["float border", "int8 border"])
@pytest.mark.parametrize(
    "layout",
    [None, NCHW, Layout((1, 480), (1, 4, 12, 10), (0, 2, 3, 1)), Layout((480,), (4, 120), (1, 0))],
    ids=["nhwc", "nchw", "flat nchw", "flat"],
)
def test_inputs_keep_the_source_models_layout_and_type(layout: Layout | None, is_float: bool) -> None:
    graph = bordered(layout, is_float=is_float)
    data = written(graph)
    x = source_inputs(graph, 4)
    proto = onnx.load_from_string(data)
    shape = [d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim]
    assert tuple(shape) == x[0].shape[1:]
    back = assert_same_network(graph, data)
    assert [k for k in kinds(back) if k != "RESHAPE"] == [k for k in kinds(graph) if k != "RESHAPE"]
    if layout is NCHW:
        assert back.input_borders == graph.input_borders
        assert proto.graph.node[0].op_type != "Transpose"
    # The order of the input changes nothing behind it.
    plain = bordered(None, is_float=is_float)
    held = x if layout is None else [layout.to_held(x[0], plain.value(plain.inputs[0]).shape)]
    for a, b in zip(run_onnx(data, x), run_onnx(write_onnx(plain), held), strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("is_float", [True, False], ids=["float", "int8"])
def test_an_image_output_keeps_the_source_models_layout(is_float: bool) -> None:
    graph = single_op_graph("CONV_2D", 1, is_float=is_float)
    shape = graph.value(graph.outputs[0]).shape
    nchw = (shape[0], shape[3], shape[1], shape[2])
    graph = replace(graph, output_borders=(Border("map", False, Layout(nchw, nchw, (0, 2, 3, 1))),))
    data = written(graph)
    x = source_inputs(graph, 3)
    (ours,), (theirs,) = run_graph(graph, x), run_onnx(data, x)
    assert ours.shape == theirs.shape == (3, *nchw)
    assert np.abs(ours.astype(float) - theirs).max() <= (1e-4 if is_float else 1)
    assert assert_same_network(graph, data, exact=not is_float).output_borders == graph.output_borders


def test_an_op_attribute_without_a_form_is_refused_by_name() -> None:
    graph = single_op_graph("SOFTMAX", 0, beta=2.0)
    with pytest.raises(DeployError, match="beta") as caught:
        write_onnx(graph)
    assert "softmax_0" in caught.value.where


def test_names_that_the_file_needs_twice_are_made_unique() -> None:
    graph = replace(every_op_graph(2), output_borders=(Border("conv_2d_0"), Border("softmax_13/real")))
    assert_same_network(graph, written(graph))


@pytest.mark.parametrize("name", [*(f"{m}_int8" for m in MODELS), "ic_float", "kws_float32"])
def test_a_reference_model_reads_back_with_the_same_weights(name: str) -> None:
    path = DATA / "models" / f"{name}.tflite"
    if not path.exists():
        pytest.skip(f"the reference model {path.name} is not there")
    graph = fold_constants(read_tflite(path))
    back = assert_same_network(graph, written(graph), exact=graph.is_integer)
    if graph.is_integer:
        assert kinds(back) == kinds(graph)
        for value in graph.constants():
            assert np.array_equal(back.value(value.name).array, value.array)
            if value.dtype is DType.INT8:
                assert back.value(value.name).quantization == value.quantization


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_each_node_of_a_reference_model_is_within_one_step(name: str) -> None:
    if not model_path(name).exists():
        pytest.skip(f"the reference model of {name} is not there")
    assert_nodes_within_one_step(fold_constants(read_tflite(model_path(name))), 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["kws", "ic"])
def test_a_reference_model_chooses_the_same_classes(name: str) -> None:
    """Over a whole network steps add up; on noise the class changes in less than 1 of 10 samples."""
    if not model_path(name).exists():
        pytest.skip(f"the reference model of {name} is not there")
    graph = fold_constants(read_tflite(model_path(name)))
    z = golden(name)
    x = z["x"].reshape(-1, *graph.value(graph.inputs[0]).shape)
    (theirs,) = run_onnx(write_onnx(graph), [x])
    expected = z["y_tflm"].reshape(len(x), -1)
    assert np.mean(theirs.reshape(len(x), -1).argmax(1) == expected.argmax(1)) >= 0.9


@pytest.mark.slow
def test_the_accuracy_of_a_reference_model_in_onnx_runtime_is_the_engines() -> None:
    """Within one point on the 1000 keyword samples; how many elements agree is not gated."""
    path = DATA / "kws01.npz"
    if not path.exists():
        pytest.skip("the keyword samples are not there")
    graph = fold_constants(read_tflite(model_path("kws")))
    with np.load(path) as z:
        x, labels = z["x"].reshape(-1, *graph.value(graph.inputs[0]).shape), z["y"]
    (ours,), (theirs,) = run(graph, [x]), run_onnx(write_onnx(graph), [x])
    accuracies = [np.mean(y.reshape(len(x), -1).argmax(1) == labels) for y in (ours, theirs)]
    assert abs(accuracies[0] - accuracies[1]) <= 0.01
