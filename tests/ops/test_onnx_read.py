"""ONNX float models: every operator in its variants against ONNX Runtime, and the shape of the graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper
from onnx_models import assert_matches, kinds, model, read

from tinydeploy.errors import DeployError
from tinydeploy.ir.graph import Layout
from tinydeploy.ops import Activation, Padding

RNG = np.random.default_rng(0)


def f32(*shape: int, scale: float = 1.0) -> Any:
    return (np.random.default_rng(sum(shape) + len(shape)).normal(0, scale, shape)).astype(np.float32)


def i64(*values: int) -> Any:
    return np.array(values, np.int64)


def node(kind: str, inputs: str, output: str = "y", **attributes: Any) -> Any:
    names = ["" if n == "-" else n for n in inputs.split()]
    return helper.make_node(kind, names, output.split(), name=f"{kind.lower()}_{output}", **attributes)


def conv_model(shape: tuple[int, ...], weights: Any, *, opset: int = 17, **attributes: Any) -> bytes:
    constants = {"w": weights, "b": f32(weights.shape[0])}
    return model([node("Conv", "x w b", **attributes)], {"x": shape}, ["y"], constants, opset=opset)


@pytest.mark.parametrize(
    ("attributes", "weights", "kind"),
    [
        ({}, (6, 4, 3, 3), "CONV_2D"),
        ({"pads": [1, 0, 2, 1], "strides": [2, 1]}, (6, 4, 3, 2), "CONV_2D"),
        ({"auto_pad": "SAME_UPPER", "strides": [2, 2]}, (6, 4, 3, 3), "CONV_2D"),
        ({"auto_pad": "SAME_LOWER", "strides": [2, 2]}, (6, 4, 2, 2), "CONV_2D"),
        ({"auto_pad": "VALID"}, (6, 4, 3, 3), "CONV_2D"),
        ({"dilations": [2, 2], "kernel_shape": [3, 3]}, (6, 4, 3, 3), "CONV_2D"),
        ({"group": 2}, (6, 2, 3, 3), "CONV_2D"),
        ({"group": 4, "pads": [1, 1, 1, 1]}, (4, 1, 3, 3), "DEPTHWISE_CONV_2D"),
        ({"group": 4}, (8, 1, 3, 3), "DEPTHWISE_CONV_2D"),
    ],
)
@pytest.mark.parametrize("opset", [11, 13, 22])
def test_convolutions(attributes: dict[str, Any], weights: tuple[int, ...], kind: str, opset: int) -> None:
    graph = assert_matches(conv_model((1, 4, 8, 7), f32(*weights), opset=opset, **attributes))
    assert kinds(graph) == [kind]
    assert graph.input_borders[0].layout == Layout((1, 4, 8, 7), (1, 4, 8, 7), (0, 2, 3, 1))


@pytest.mark.parametrize("channels", [1, 4])
def test_a_sequence_is_an_image_of_height_one(channels: int) -> None:
    nodes = [
        node("Conv", "x w b", "c", pads=[1, 1], strides=[2]),
        node("Relu", "c", "r"),
        node("MaxPool", "r", "p", kernel_shape=[2], strides=[2]),
        node("GlobalAveragePool", "p", "g"),
        node("Flatten", "g"),
    ]
    data = model(nodes, {"x": (1, channels, 20)}, ["y"], {"w": f32(6, channels, 3), "b": f32(6)})
    graph = assert_matches(data)
    assert [k for k in kinds(graph) if k != "RESHAPE"] == ["CONV_2D", "MAX_POOL_2D", "MEAN"]


@pytest.mark.parametrize("batch", ["N", 0, 1])
def test_a_dynamic_batch_is_one(batch: Any) -> None:
    graph = read(conv_model((batch, 4, 8, 7), f32(6, 4, 3, 3)))
    assert graph.value(graph.inputs[0]).shape == (1, 8, 7, 4)


@pytest.mark.parametrize("opset", [11, 13, 17, 21, 23])
def test_a_residual_network_holds_no_transposition(opset: int) -> None:
    axes = {"axes": i64(2, 3)} if opset >= 18 else {}
    mean = node(
        "ReduceMean", "s axes" if axes else "s", "g", keepdims=0, **({} if axes else {"axes": [2, 3]})
    )
    nodes = [
        node("Conv", "x w b", "c1", pads=[1, 1, 1, 1]),
        node("BatchNormalization", "c1 bs bb bm bv", "n1"),
        node("Relu", "n1", "r1"),
        node("Conv", "r1 w2", "c2", pads=[1, 1, 1, 1]),
        node("BatchNormalization", "c2 bs bb bm bv", "n2"),
        node("Add", "n2 r1", "a"),
        node("Clip", "a lo hi", "s"),
        mean,
        node("MatMul", "g fw", "m"),
        node("Add", "m fb", "l"),
        node("Softmax", "l", axis=1),
    ]
    constants = {
        "w": f32(6, 3, 3, 3),
        "b": f32(6),
        "w2": f32(6, 6, 3, 3, scale=0.2),
        "bs": f32(6),
        "bb": f32(6, scale=0.5),
        "bm": f32(6),
        "bv": np.abs(f32(6)) + 0.5,
        "fw": f32(6, 5),
        "fb": f32(5),
        "lo": np.float32(0),
        "hi": np.float32(6),
        **axes,
    }
    graph = assert_matches(model(nodes, {"x": ("N", 3, 8, 8)}, ["y"], constants, opset=opset))
    assert kinds(graph) == ["CONV_2D", "CONV_2D", "ADD", "MEAN", "FULLY_CONNECTED", "SOFTMAX"]
    assert graph.nodes[0].op.activation is Activation.RELU  # type: ignore[attr-defined]
    assert graph.nodes[2].op.activation is Activation.RELU6  # type: ignore[attr-defined]


def shape_chain() -> list[Any]:
    """What old exporters write for x.view(x.size(0), -1)."""
    return [
        node("Shape", "c", "s"),
        node("Constant", "", "zero", value_int=0),
        node("Gather", "s zero", "n", axis=0),
        node("Unsqueeze", "n axis0", "n1"),
        node("Constant", "", "rest", value_ints=[-1]),
        node("Concat", "n1 rest", "shape", axis=0),
        node("Reshape", "c shape", "f"),
    ]


@pytest.mark.parametrize(
    "flatten",
    [
        [node("Flatten", "c", "f")],
        [node("Reshape", "c target", "f")],
        [node("Reshape", "c copied", "f")],
        shape_chain(),
        [node("Reshape", "c twice", "t"), node("Flatten", "t", "f")],
    ],
    ids=["flatten", "reshape", "copied", "shape chain", "twice"],
)
def test_a_flatten_permutes_the_weights_behind_it(flatten: list[Any]) -> None:
    nodes = [node("Conv", "x w", "c"), *flatten, node("Gemm", "f fw fb", transB=1)]
    constants = {
        "w": f32(4, 3, 3, 3),
        "fw": f32(7, 4 * 6 * 5),
        "fb": f32(7),
        "target": i64(1, -1),
        "copied": i64(0, 120),
        "twice": i64(1, 4, 30),
        "axis0": i64(0),
    }
    graph = assert_matches(model(nodes, {"x": (1, 3, 8, 7)}, ["y"], constants))
    assert kinds(graph) == ["CONV_2D", "RESHAPE", "FULLY_CONNECTED"]


@pytest.mark.parametrize("attributes", [{}, {"transB": 1}, {"alpha": 0.5, "beta": 2.0}, {"transA": 1}])
@pytest.mark.parametrize("bias", [(5,), (1, 5), (1,), None])
def test_gemm(attributes: dict[str, Any], bias: tuple[int, ...] | None) -> None:
    shape = (6, 1) if "transA" in attributes else (1, 6)
    constants = {"w": f32(5, 6) if "transB" in attributes else f32(6, 5)}
    if bias is not None:
        constants["b"] = f32(*bias)
    data = model([node("Gemm", "x w b" if bias else "x w", **attributes)], {"x": shape}, ["y"], constants)
    assert "FULLY_CONNECTED" in kinds(assert_matches(data))


@pytest.mark.parametrize("shape", [(1, 6), (1, 3, 6), (1, 2, 3, 6)])
def test_matmul_and_add_are_one_layer(shape: tuple[int, ...]) -> None:
    nodes = [node("MatMul", "x w", "m"), node("Add", "b m", "a"), node("Relu", "a")]
    graph = assert_matches(model(nodes, {"x": shape}, ["y"], {"w": f32(6, 5), "b": f32(5)}))
    assert [k for k in kinds(graph) if k != "RESHAPE"] == ["FULLY_CONNECTED"]


POOLS = [
    ("MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2]}),
    ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    ("MaxPool", {"kernel_shape": [2, 3], "auto_pad": "SAME_UPPER"}),
    ("AveragePool", {"kernel_shape": [2, 2], "strides": [2, 2]}),
    ("AveragePool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    ("AveragePool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
    ("GlobalAveragePool", {}),
    ("GlobalMaxPool", {}),
]


@pytest.mark.parametrize(("kind", "attributes"), POOLS)
@pytest.mark.parametrize("opset", [11, 21])
def test_pools(kind: str, attributes: dict[str, Any], opset: int) -> None:
    graph = assert_matches(model([node(kind, "x", **attributes)], {"x": (1, 4, 8, 7)}, ["y"], opset=opset))
    assert "PAD" in kinds(graph) or len(graph.nodes) <= 2


MEANS = [([2, 3], 1), ([2, 3], 0), ([-1], 1), ([1], 0), ([1, 2, 3], 0), (None, 1)]


@pytest.mark.parametrize(("axes", "keepdims"), MEANS)
@pytest.mark.parametrize("opset", [11, 18])
@pytest.mark.parametrize("behind_a_conv", [False, True])
def test_means(axes: list[int] | None, keepdims: int, opset: int, behind_a_conv: bool) -> None:
    name = "c" if behind_a_conv else "x"
    constants = {"w": f32(4, 3, 3, 3)}
    if opset >= 18 and axes is not None:
        constants["axes"] = i64(*axes)
        mean = node("ReduceMean", f"{name} axes", keepdims=keepdims)
    else:
        given = {} if axes is None else {"axes": axes}
        mean = node("ReduceMean", name, keepdims=keepdims, **given)
    nodes = [node("Conv", "x w", "c"), mean] if behind_a_conv else [mean]
    assert_matches(model(nodes, {"x": (1, 3, 8, 7)}, ["y"], constants, opset=opset))


@pytest.mark.parametrize("shape", [(4, 1, 1), (1, 4, 1, 1), (1,), (), (1, 1, 6, 5), (1, 4, 6, 5), (5,)])
@pytest.mark.parametrize("kind", ["Add", "Mul", "Sub", "Div"])
def test_a_constant_operand(shape: tuple[int, ...], kind: str) -> None:
    constant = np.abs(f32(*shape)) + 0.5
    constant = np.asarray(constant, np.float32)
    nodes = [node("Conv", "x w", "c"), node(kind, "c k", "d"), node("Relu", "d")]
    graph = assert_matches(model(nodes, {"x": (1, 3, 8, 7)}, ["y"], {"w": f32(4, 3, 3, 3), "k": constant}))
    folds = shape in ((4, 1, 1), (1, 4, 1, 1), (1,), ())
    assert (kinds(graph) == ["CONV_2D"]) == folds


@pytest.mark.parametrize("kind", ["Add", "Mul"])
@pytest.mark.parametrize("other", [(1, 4, 1, 1), (1, 4, 6, 5), (1, 1, 6, 5)])
def test_two_computed_operands(kind: str, other: tuple[int, ...]) -> None:
    nodes = [node("Conv", "x w", "c"), node(kind, "c z")]
    data = model(nodes, {"x": (1, 3, 8, 7), "z": other}, ["y"], {"w": f32(4, 3, 3, 3)})
    assert kinds(assert_matches(data))[-1] in (kind.upper(), "MUL")


def test_the_order_of_an_input_comes_from_what_it_meets_later() -> None:
    """x is scaled, shifted and clamped before the convolution that asks for NHWC."""
    nodes = [
        node("Sub", "x mean", "a"),
        node("Div", "a std", "b"),
        node("Relu", "b", "c"),
        node("Conv", "c w"),
    ]
    constants = {"mean": f32(1, 3, 1, 1), "std": np.abs(f32(1, 3, 1, 1)) + 1, "w": f32(4, 3, 3, 3)}
    graph = assert_matches(model(nodes, {"x": (1, 3, 8, 7)}, ["y"], constants))
    assert graph.value(graph.inputs[0]).shape == (1, 8, 7, 3)


def test_a_model_with_nhwc_borders_holds_no_transposition() -> None:
    nodes = [
        node("Transpose", "x", "t", perm=[0, 3, 1, 2]),
        node("Conv", "t w", "c"),
        node("Transpose", "c", perm=[0, 2, 3, 1]),
    ]
    graph = assert_matches(model(nodes, {"x": (1, 8, 7, 3)}, ["y"], {"w": f32(4, 3, 3, 3)}))
    assert kinds(graph) == ["CONV_2D"]
    assert graph.input_borders[0].layout is None
    assert graph.output_borders[0].layout is None


def test_a_flat_input_may_be_an_image() -> None:
    nodes = [node("Reshape", "x shape", "i"), node("Conv", "i w", "c"), node("Flatten", "c")]
    constants = {"shape": i64(1, 3, 8, 7), "w": f32(4, 3, 3, 3)}
    graph = assert_matches(model(nodes, {"x": (1, 168)}, ["y"], constants))
    assert [k for k in kinds(graph) if k != "RESHAPE"] == ["CONV_2D"]


@pytest.mark.parametrize(("axes", "opset"), [([0, 0, 1, 1, 0, 0, 1, 1], 11), ([0, 0, 1, 2, 0, 0, 0, 1], 18)])
def test_a_zero_pad_becomes_the_convolutions_own(axes: list[int], opset: int) -> None:
    nodes = [node("Pad", "x pads", "p"), node("Conv", "p w")]
    constants = {"pads": i64(*axes), "w": f32(4, 3, 3, 3)}
    graph = assert_matches(model(nodes, {"x": (1, 3, 8, 7)}, ["y"], constants, opset=opset))
    assert kinds(graph) == ["CONV_2D"]
    assert graph.nodes[0].op.padding == Padding(axes[2], axes[6], axes[3], axes[7])  # type: ignore[attr-defined]


def test_other_pads_stay() -> None:
    nodes = [node("Conv", "x w", "c"), node("Pad", "c pads value axes")]
    constants = {"pads": i64(1, 2, 0, 1), "value": np.float32(1.5), "axes": i64(1, -1), "w": f32(4, 3, 3, 3)}
    assert kinds(assert_matches(model(nodes, {"x": (1, 3, 8, 7)}, ["y"], constants, opset=18))) == [
        "CONV_2D",
        "PAD",
    ]


@pytest.mark.parametrize("axis", [1, 2, -1])
def test_concatenation(axis: int) -> None:
    nodes = [node("Conv", "x w", "a"), node("Sigmoid", "a", "b"), node("Concat", "a b a", axis=axis)]
    graph = assert_matches(model(nodes, {"x": (1, 3, 8, 7)}, ["y"], {"w": f32(4, 3, 3, 3)}))
    assert kinds(graph) == ["CONV_2D", "LOGISTIC", "CONCATENATION"]


@pytest.mark.parametrize(("opset", "axis"), [(11, 1), (11, None), (13, 1), (17, -3)])
def test_softmax_over_channels(opset: int, axis: int | None) -> None:
    nodes = [
        node("Conv", "x w", "a"),
        node("GlobalAveragePool" if opset < 13 else "Identity", "a", "b"),
        node("Softmax", "b", **({} if axis is None else {"axis": axis})),
    ]
    assert_matches(model(nodes, {"x": (1, 3, 8, 7)}, ["y"], {"w": f32(4, 3, 3, 3)}, opset=opset))


@pytest.mark.parametrize("opset", [11, 13])
def test_squeeze_and_unsqueeze_cost_nothing(opset: int) -> None:
    squeeze = node("Squeeze", "g", "s", axes=[2, 3]) if opset < 13 else node("Squeeze", "g sq", "s")
    unsqueeze = node("Unsqueeze", "s", "u", axes=[1]) if opset < 13 else node("Unsqueeze", "s un", "u")
    nodes = [
        node("GlobalAveragePool", "x", "g"),
        squeeze,
        unsqueeze,
        node("Dropout", "u", "d"),
        node("Identity", "d", "i"),
        node("Cast", "i", "k", to=1),
        node("MatMul", "k w"),
    ]
    constants = {"sq": i64(2, 3), "un": i64(1), "w": f32(4, 3)}
    constants = {k: v for k, v in constants.items() if k == "w" or opset >= 13}
    graph = assert_matches(model(nodes, {"x": (1, 4, 5, 6)}, ["y"], constants, opset=opset))
    assert [k for k in kinds(graph) if k != "RESHAPE"] == ["MEAN", "FULLY_CONNECTED"]


@pytest.mark.parametrize("shape", [(1, 4), (1, 4, 6), (1, 4, 6, 5)])
def test_a_batch_norm_of_its_own(shape: tuple[int, ...]) -> None:
    constants = {"s": f32(4), "b": f32(4), "m": f32(4), "v": np.abs(f32(4)) + 0.5}
    nodes = [node("Relu", "x", "r"), node("BatchNormalization", "r s b m v", epsilon=1e-3)]
    graph = assert_matches(model(nodes, {"x": shape}, ["y"], constants))
    assert ("DEPTHWISE_CONV_2D" in kinds(graph)) == (len(shape) > 2)


def test_a_tensor_that_two_layers_read_is_not_fused() -> None:
    nodes = [node("Conv", "x w", "c"), node("Relu", "c", "r"), node("Add", "c r")]
    graph = assert_matches(model(nodes, {"x": (1, 3, 8, 7)}, ["y"], {"w": f32(4, 3, 3, 3)}))
    assert kinds(graph) == ["CONV_2D", "RELU", "ADD"]


def test_two_flattened_branches_are_refused_by_name() -> None:
    """A channel shuffle needs a transposition, which the graph has not."""
    nodes = [
        node("Conv", "x w", "c"),
        node("Reshape", "c five", "r"),
        node("Transpose", "r", "t", perm=[0, 2, 1, 3, 4]),
        node("Reshape", "t four", "f"),
        node("Conv", "f w2"),
    ]
    constants = {
        "w": f32(4, 3, 3, 3),
        "five": i64(1, 2, 2, 6, 5),
        "four": i64(1, 4, 6, 5),
        "w2": f32(4, 4, 1, 1),
    }
    with pytest.raises(DeployError, match="another order") as caught:
        read(model(nodes, {"x": (1, 3, 8, 7)}, ["y"], constants))
    assert "conv_y" in caught.value.where
