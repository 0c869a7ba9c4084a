"""Quantized ONNX models, as QDQ and as QLinear operators, against ONNX Runtime and against each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx_models import kinds, model, read, run_graph, run_onnx
from onnx_networks import f32, float_network, quantized_network, samples

from tinydeploy.errors import DeployError
from tinydeploy.ir.graph import Layout
from tinydeploy.ir.types import DType, Quantization
from tinydeploy.ops import Activation

UINT8 = TensorProto.UINT8
INT8 = TensorProto.INT8


@pytest.mark.parametrize("per_channel", [False, True], ids=["per tensor", "per channel"])
@pytest.mark.parametrize("unsigned", [False, True], ids=["int8", "uint8"])
@pytest.mark.parametrize("qdq", [False, True], ids=["QOperator", "QDQ"])
def test_what_onnx_runtime_quantizes_reads_as_an_integer_graph(
    tmp_path: Path, qdq: bool, unsigned: bool, per_channel: bool
) -> None:
    """Rule: 93 % of the outputs within one step of 1/256, none beyond six, and the same class each time.

    Each node differs by at most one step; over seventeen of them that may grow.
    """
    data = quantized_network(tmp_path, qdq=qdq, unsigned=unsigned, per_channel=per_channel)
    graph = read(data)
    assert graph.is_integer
    assert "QUANTIZE" not in kinds(graph)[:7]
    layout = Layout((1, 3, 16, 16), (1, 3, 16, 16), (0, 2, 3, 1))
    assert graph.input_borders[0].is_float
    assert graph.input_borders[0].layout == layout
    x = [samples(40)]
    (ours,), (theirs,) = run_graph(graph, x), run_onnx(data, x)
    steps = np.abs(ours - theirs) * 256
    assert (steps <= 1.01).mean() >= 0.93
    assert steps.max() <= 6.01
    assert (ours.argmax(-1) == theirs.argmax(-1)).all()
    (real,) = run_onnx(float_network(), x)
    assert (ours.argmax(-1) == real.argmax(-1)).mean() >= 0.95


def test_uint8_and_int8_activations_give_one_integer_network(tmp_path: Path) -> None:
    graphs = [
        read(quantized_network(tmp_path, qdq=True, unsigned=unsigned, per_channel=True))
        for unsigned in (False, True)
    ]
    assert kinds(graphs[0]) == kinds(graphs[1])
    x = [samples(10)]
    assert np.array_equal(run_graph(graphs[0], x)[0], run_graph(graphs[1], x)[0])


Q = {
    "xs": np.float32(0.05),
    "xz": np.uint8(120),
    "zs": np.float32(0.03),
    "zz": np.uint8(90),
    "ys": np.float32(0.06),
    "yz": np.uint8(131),
    "ps": np.float32(1 / 256),
    "pz": np.uint8(0),
    "w": np.random.default_rng(1).integers(-127, 128, (4, 3, 3, 3)).astype(np.int8),
    "ws": np.array([0.01, 0.02, 0.015, 0.03], np.float32),
    "w1": np.float32(0.02),
    "wz": np.zeros(4, np.int8),
    "w0": np.int8(0),
    "b": np.array([1000, -2000, 300, 0], np.int32),
    "fw": np.random.default_rng(2).integers(-127, 128, (6, 4)).astype(np.int8),
    "ft": np.random.default_rng(2).integers(-127, 128, (4, 6)).astype(np.int8),
    "bs": np.float32(4.0),
    "bz": np.uint8(100),
}

IMAGE, ROW = (1, 3, 6, 5), (1, 6)
CASES: dict[str, tuple[str, str, dict[str, tuple[int, ...]], dict[str, Any]]] = {
    "conv": ("QLinearConv", "x xs xz w ws wz bs bz b", {"x": IMAGE}, {"pads": [1, 1, 1, 1]}),
    "conv per tensor": ("QLinearConv", "x xs xz w w1 w0 bs bz", {"x": IMAGE}, {"strides": [2, 2]}),
    "matmul": ("QLinearMatMul", "x xs xz fw w1 w0 bs bz", {"x": ROW}, {}),
    "gemm": ("com.microsoft:QGemm", "x xs xz fw ws wz b bs bz", {"x": ROW}, {}),
    "gemm transposed": ("com.microsoft:QGemm", "x xs xz ft w1 w0 b bs bz", {"x": ROW}, {"transB": 1}),
    "add": ("com.microsoft:QLinearAdd", "x xs xz z zs zz ys yz", {"x": IMAGE, "z": IMAGE}, {}),
    "add broadcast": (
        "com.microsoft:QLinearAdd",
        "x xs xz z zs zz ys yz",
        {"x": IMAGE, "z": (1, 3, 1, 1)},
        {},
    ),
    "mul": ("com.microsoft:QLinearMul", "x xs xz z zs zz ys yz", {"x": IMAGE, "z": IMAGE}, {}),
    "global pool": (
        "com.microsoft:QLinearGlobalAveragePool",
        "x xs xz zs zz",
        {"x": IMAGE},
        {"channels_last": 0},
    ),
    "average pool": (
        "com.microsoft:QLinearAveragePool",
        "x xs xz xs xz",
        {"x": IMAGE},
        {"kernel_shape": [2, 2], "strides": [2, 2]},
    ),
    "concat": ("com.microsoft:QLinearConcat", "ys yz x xs xz z zs zz", {"x": IMAGE, "z": IMAGE}, {"axis": 1}),
    "sigmoid": ("com.microsoft:QLinearSigmoid", "x xs xz ps pz", {"x": IMAGE}, {}),
    "softmax": ("com.microsoft:QLinearSoftmax", "x xs xz ps pz", {"x": ROW}, {"axis": 1, "opset": 17}),
    "softmax rescaled": (
        "com.microsoft:QLinearSoftmax",
        "x xs xz zs zz",
        {"x": ROW},
        {"axis": 1, "opset": 17},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_qlinear_operator_is_within_one_step(case: str) -> None:
    kind, names, inputs, attributes = CASES[case]
    domain, _, name = kind.rpartition(":")
    node = helper.make_node(name, names.split(), ["y"], name="node", domain=domain, **attributes)
    constants = {k: v for k, v in Q.items() if k in names.split()}
    types = dict.fromkeys([*inputs, "y"], UINT8)
    data = model([node], inputs, ["y"], constants, types=types, microsoft=True)
    graph = read(data)
    assert graph.value(graph.inputs[0]).dtype is DType.UINT8
    rng = np.random.default_rng(3)
    x = [rng.integers(0, 256, (20, *s)).astype(np.uint8) for s in inputs.values()]
    (ours,), (theirs,) = run_graph(graph, x), run_onnx(data, x)
    assert ours.dtype == theirs.dtype == np.uint8
    assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 1


def q(x: str, y: str, scale: str, zero: str) -> Any:
    return helper.make_node("QuantizeLinear", [x, scale, zero], [y])


def dq(x: str, y: str, scale: str, zero: str, **attributes: Any) -> Any:
    return helper.make_node("DequantizeLinear", [x, scale, zero], [y], **attributes)


QDQ = {
    "s": np.float32(0.05),
    "z": np.int8(-3),
    "t": np.float32(0.04),
    "u": np.int8(7),
    "w": Q["w"],
    "ws": Q["ws"],
    "wz": Q["wz"],
    "b": Q["b"],
    "bs": (Q["ws"] * np.float32(0.05)).astype(np.float32),
    "bz": np.zeros(4, np.int32),
}


def conv_qdq(*behind: Any, bias: str = "br", extra: dict[str, Any] | None = None) -> bytes:
    nodes = [
        q("x", "xq", "s", "z"),
        dq("xq", "xr", "s", "z"),
        dq("w", "wr", "ws", "wz", axis=0),
        dq("b", "br", "bs", "bz", axis=0),
        helper.make_node("Conv", ["xr", "wr", bias], ["c"], name="conv"),
        *behind,
    ]
    return model(nodes, {"x": IMAGE}, ["y"], {**QDQ, **(extra or {})})


@pytest.mark.parametrize("opset", [13, 21])
def test_scales_names_and_fused_activation_of_a_qdq_layer(opset: int) -> None:
    behind = [helper.make_node("Relu", ["c"], ["r"]), q("r", "yq", "t", "u"), dq("yq", "y", "t", "u")]
    graph = read(conv_qdq(*behind))
    assert kinds(graph) == ["CONV_2D"]
    (node,) = graph.nodes
    assert node.name == "conv"
    assert node.op.activation is Activation.RELU  # type: ignore[attr-defined]
    assert (graph.inputs, graph.outputs) == (("xq",), ("yq",))
    x, weights, bias = (graph.value(n) for n in node.inputs if n is not None)
    assert x.quant == Quantization((float(np.float32(0.05)),), (-3,))
    assert weights.quant == Quantization(tuple(map(float, Q["ws"])), (0,) * 4, 0)
    assert np.array_equal(weights.array, Q["w"].transpose(0, 2, 3, 1))
    assert np.array_equal(bias.array, Q["b"])
    assert graph.value("yq").quant == Quantization((float(np.float32(0.04)),), (7,))


def test_a_float_bias_becomes_int32_at_the_scale_of_the_products() -> None:
    behind = [q("c", "yq", "t", "u"), dq("yq", "y", "t", "u")]
    real = f32(5, 4)
    graph = read(conv_qdq(*behind, bias="bf", extra={"bf": real}))
    bias = graph.value(graph.nodes[0].inputs[2] or "")
    assert bias.dtype is DType.INT32
    assert np.abs(bias.array * np.array(bias.quant.scales) - real).max() <= max(bias.quant.scales)


def test_weights_quantized_inside_the_model_are_folded() -> None:
    nodes = [
        q("x", "xq", "s", "z"),
        dq("xq", "xr", "s", "z"),
        helper.make_node("QuantizeLinear", ["wf", "ws", "wz"], ["wq"], axis=0),
        dq("wq", "wr", "ws", "wz", axis=0),
        helper.make_node("Conv", ["xr", "wr"], ["c"]),
        q("c", "yq", "t", "u"),
        dq("yq", "y", "t", "u"),
    ]
    data = model(nodes, {"x": IMAGE}, ["y"], {**QDQ, "wf": f32(1, 4, 3, 3, 3)})
    x = [f32(7, 5, *IMAGE)]
    graph = read(data)
    assert kinds(graph) == ["CONV_2D"]
    assert np.abs(run_graph(graph, x)[0] - run_onnx(data, x)[0]).max() <= 0.0401


def test_integer_inputs_and_outputs_keep_their_type() -> None:
    nodes = [
        dq("x", "xr", "s", "z"),
        helper.make_node("MaxPool", ["xr"], ["m"], kernel_shape=[2, 2]),
        q("m", "y", "s", "z"),
    ]
    data = model(nodes, {"x": IMAGE}, ["y"], {"s": QDQ["s"], "z": QDQ["z"]}, types={"x": INT8, "y": INT8})
    graph = read(data)
    assert [b.is_float for b in (*graph.input_borders, *graph.output_borders)] == [False, False]
    x = [np.random.default_rng(0).integers(-128, 128, (4, *IMAGE)).astype(np.int8)]
    assert np.array_equal(run_graph(graph, x)[0], run_onnx(data, x)[0])


REFUSED = {
    "nothing quantizes the last layer": ([helper.make_node("Identity", ["c"], ["y"])], "nothing quantizes"),
    "nothing quantizes a layer inside": (
        [
            helper.make_node("Sigmoid", ["c"], ["d"]),
            q("d", "yq", "t", "u"),
            dq("yq", "y", "t", "u"),
        ],
        "before anything quantizes it",
    ),
    "read with another scale": ([q("c", "yq", "t", "u"), dq("yq", "y", "s", "u")], "is read with"),
    "a float constant": (
        [
            q("c", "cq", "t", "u"),
            dq("cq", "cr", "t", "u"),
            helper.make_node("Mul", ["cr", "k"], ["d"]),
            q("d", "yq", "t", "u"),
            dq("yq", "y", "t", "u"),
        ],
        "some operands are quantized",
    ),
    "int16 activations": ([q("c", "yq", "t", "long"), dq("yq", "y", "t", "long")], "int16"),
    "a scale of zero": ([q("c", "yq", "zero", "u"), dq("yq", "y", "zero", "u")], "not a positive number"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_half_quantized_models_are_refused(case: str) -> None:
    behind, message = REFUSED[case]
    extra = {"k": f32(3, 4, 1, 1), "long": np.int16(0), "zero": np.float32(0)}
    with pytest.raises(DeployError, match=message):
        read(conv_qdq(*behind, extra=extra))


def test_asymmetric_weights_are_refused_with_a_hint() -> None:
    node = helper.make_node("QLinearConv", ["x", "xs", "xz", "w", "w1", "odd", "bs", "bz"], ["y"])
    constants = {k: v for k, v in Q.items() if k in ["xs", "xz", "w", "w1", "bs", "bz"]}
    data = model(
        [node], {"x": IMAGE}, ["y"], {**constants, "odd": np.int8(5)}, types=dict.fromkeys("xy", UINT8)
    )
    with pytest.raises(DeployError, match="zero point other than 0") as caught:
        read(data)
    assert "symmetric" in caught.value.hint
