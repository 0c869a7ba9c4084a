"""A written TFLite model reads back equal and computes the same in every runtime."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graphs import MAKERS, every_op_graph, random_inputs, single_op_graph
from interpreters import run_lite, run_micro

from tinydeploy.backends.tflite import write_tflite
from tinydeploy.engine import run
from tinydeploy.errors import DeployError
from tinydeploy.frontends.tflite import parse_tflite, read_tflite
from tinydeploy.ir.graph import Border, Graph
from tinydeploy.ir.show import show
from tinydeploy.ir.types import DType
from tinydeploy.ir.verify import verify
from tinydeploy.ops import Activation, Padding
from tinydeploy.ops.quantize import quantize_array

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
REFERENCES = ["ic_int8", "kws_int8", "vww_int8", "ad_int8", "sww_int8"]

PLAIN: list[tuple[str, dict[str, Any]]] = [
    *((kind, {}) for kind in MAKERS),
    ("CONV_2D", {"groups": 2}),
    ("CONV_2D", {"per_channel": False, "padding": "valid"}),
    ("CONV_2D", {"dilations": (2, 2)}),
    ("CONV_2D", {"strides": (2, 2), "activation": Activation.RELU6}),
    ("DEPTHWISE_CONV_2D", {"multiplier": 3}),
    ("DEPTHWISE_CONV_2D", {"dilations": (2, 1), "bias": False}),
    ("FULLY_CONNECTED", {"bias": False, "activation": Activation.RELU}),
    ("FULLY_CONNECTED", {"keep_dims": True, "shape": (1, 3, 20)}),
    ("MAX_POOL_2D", {"padding": "same", "kernel": (3, 3)}),
    ("AVERAGE_POOL_2D", {"padding": "same", "kernel": (3, 3), "activation": Activation.RELU}),
    ("ADD", {"shapes": ((1, 5, 4, 3), (1, 1, 1, 3)), "activation": Activation.RELU}),
    ("MUL", {"shapes": ((1, 5, 4, 3), (1, 1, 1, 3))}),
    ("PAD", {"value": 7.0}),
    ("MEAN", {"axes": (3,), "keep_dims": True}),
    ("RELU", {"activation": Activation.RELU6}),
]
"""Graphs that TFLite has a form for: they read back equal."""

LOWERED: list[tuple[str, dict[str, Any], list[str]]] = [
    ("CONV_2D", {"padding": Padding(2, 0, 1, 1)}, ["PAD", "CONV_2D"]),
    ("CONV_2D", {"bias": False}, ["CONV_2D"]),
    ("DEPTHWISE_CONV_2D", {"padding": Padding(0, 1, 0, 2)}, ["PAD", "DEPTHWISE_CONV_2D"]),
    ("MAX_POOL_2D", {"padding": Padding(1, 0, 1, 0)}, ["PAD", "MAX_POOL_2D"]),
]
"""Graphs that need other operators in front, and the kinds that they read back as."""


def label(case: Any) -> str:
    if isinstance(case, bool):
        return "float" if case else "int8"
    return case if isinstance(case, str) else ",".join(map(str, case))


def read(data: bytes, graph: Graph) -> Graph:
    return parse_tflite(data, graph.name, graph.source)


def assert_equal(a: Graph, b: Graph) -> None:
    """The same text, structure and data."""
    assert show(a) == show(b)
    assert a == b
    for value in a.constants():
        assert np.array_equal(value.array, b.value(value.name).array)


def assert_same_results(a: Graph, b: Graph, *, is_float: bool = False) -> None:
    x = random_inputs(a, 4)
    for left, right in zip(run(a, x), run(b, x), strict=True):
        assert np.allclose(left, right, atol=1e-4) if is_float else np.array_equal(left, right)


def make(kind: str, given: dict[str, Any], *, is_float: bool = False) -> Graph:
    if kind == "PAD" and "value" in given and not is_float:
        given = {**given, "value": int(given["value"])}
    graph = single_op_graph(kind, 5, is_float=is_float, **given)
    verify(graph)
    return graph


@pytest.mark.parametrize(
    ("kind", "given", "is_float"),
    # The maker of QUANTIZE goes from integer to integer.
    [(kind, given, f) for kind, given in PLAIN for f in (False, True) if not (f and kind == "QUANTIZE")],
    ids=label,
)
def test_one_op_reads_back_equal_and_runs_alike_in_micro(
    kind: str, given: dict[str, Any], is_float: bool
) -> None:
    if is_float and kind == "QUANTIZE":
        pytest.skip("QUANTIZE of this maker goes from integer to integer")
    graph = make(kind, given, is_float=is_float)
    data = write_tflite(graph)
    assert_equal(graph, read(data, graph))
    compare(graph, data, run_micro, is_float=is_float)


@pytest.mark.parametrize("is_float", [False, True])
@pytest.mark.parametrize(("kind", "given", "kinds"), LOWERED, ids=label)
def test_what_tflite_has_no_form_for_is_carried_by_operators_in_front(
    kind: str, given: dict[str, Any], kinds: list[str], is_float: bool
) -> None:
    graph = make(kind, given, is_float=is_float)
    data = write_tflite(graph)
    back = read(data, graph)
    assert [n.op.kind for n in back.nodes] == kinds
    assert_same_results(graph, back, is_float=is_float)
    compare(graph, data, run_micro, is_float=is_float)


def test_concatenation_of_unequal_scales_requantizes_in_front() -> None:
    graph = make("CONCATENATION", {"equal_scales": False})
    data = write_tflite(graph)
    back = read(data, graph)
    assert [n.op.kind for n in back.nodes] == ["QUANTIZE", "QUANTIZE", "CONCATENATION"]
    assert_same_results(graph, back)
    compare(graph, data, run_micro)


def test_per_channel_fully_connected_weights_run_in_micro() -> None:
    graph = make("FULLY_CONNECTED", {"per_channel": True})
    data = write_tflite(graph)
    assert_equal(graph, read(data, graph))
    compare(graph, data, run_micro)
    compare(graph, data, lambda model, x: run_lite("ai_edge_litert", model, x))


def test_uneven_padding_of_an_average_pool_is_refused() -> None:
    graph = make("AVERAGE_POOL_2D", {"padding": Padding(1, 0, 0, 0)})
    with pytest.raises(DeployError, match="average pool") as caught:
        write_tflite(graph)
    assert "average_pool_2d_0" in caught.value.where


def compare(graph: Graph, data: bytes, runtime: Any, *, is_float: bool = False) -> None:
    x = random_inputs(graph, 4, seed=1)
    for ours, theirs in zip(run(graph, x), runtime(data, x), strict=True):
        shaped = theirs.reshape(ours.shape)
        assert np.allclose(ours, shaped, atol=1e-4) if is_float else np.array_equal(ours, shaped)


@pytest.mark.parametrize("package", ["tflite_runtime", "ai_edge_litert"])
@pytest.mark.parametrize("is_float", [False, True])
def test_a_network_of_every_op_reads_back_equal_and_runs_everywhere(package: str, is_float: bool) -> None:
    graph = every_op_graph(3, is_float=is_float)
    verify(graph)
    data = write_tflite(graph)
    assert_equal(graph, read(data, graph))
    compare(graph, data, run_micro, is_float=is_float)
    for ours, theirs in zip(
        run(graph, random_inputs(graph, 4)), run_lite(package, data, random_inputs(graph, 4)), strict=True
    ):
        # TensorFlow Lite's own kernels may round a step otherwise.
        assert np.abs(ours - theirs.reshape(ours.shape).astype(np.float64)).max() <= (1e-4 if is_float else 2)


def test_two_runs_give_equal_bytes() -> None:
    assert write_tflite(every_op_graph(1)) == write_tflite(every_op_graph(1))


def test_float_borders_are_written_again() -> None:
    plain = every_op_graph(2)
    graph = replace(
        plain,
        input_borders=(Border("image", is_float=True),),
        output_borders=(Border("classes", is_float=True), Border("scores", is_float=True)),
    )
    data = write_tflite(graph)
    back = read(data, graph)
    assert back.input_borders == graph.input_borders
    assert back.output_borders == graph.output_borders
    assert_equal(graph, back)
    value = graph.value(graph.inputs[0])
    x = np.random.default_rng(0).normal(0, 1, (3, *value.shape)).astype(np.float32)
    outputs = run(graph, [quantize_array(x, value.quant, value.dtype)])
    for name, ours, theirs in zip(graph.outputs, outputs, run_micro(data, [x]), strict=True):
        quant = graph.value(name).quant
        real = (ours.astype(np.float64) - quant.zero_point) * quant.scale
        assert np.allclose(real, theirs.reshape(real.shape))


def test_an_integer_border_keeps_its_own_name() -> None:
    graph = replace(every_op_graph(2), input_borders=(Border("image"),))
    assert read(write_tflite(graph), graph).inputs == ("image",)


def test_names_that_the_file_needs_twice_are_made_unique() -> None:
    graph = replace(every_op_graph(2), output_borders=(Border("conv_2d_0", True), Border("softmax_13", True)))
    back = read(write_tflite(graph), graph)
    assert [b.name for b in back.output_borders] == ["conv_2d_0", "softmax_13"]
    assert_same_results(graph, back)


def test_a_uint8_model_keeps_its_types() -> None:
    graph = make("QUANTIZE", {"source": DType.INT8, "target": DType.UINT8})
    data = write_tflite(graph)
    assert_equal(graph, read(data, graph))
    compare(graph, data, run_micro)


def test_a_bias_without_a_scale_gets_that_of_the_products() -> None:
    graph = make("FULLY_CONNECTED", {})
    values = {
        k: replace(v, quantization=None) if v.dtype is DType.INT32 else v for k, v in graph.values.items()
    }
    bare = replace(graph, values=values)
    assert_equal(graph, read(write_tflite(bare), graph))


@pytest.mark.parametrize("name", REFERENCES)
def test_a_reference_model_written_again_runs_as_the_original(name: str) -> None:
    path = DATA / "models" / f"{name}.tflite"
    if not path.exists():
        pytest.skip(f"the reference model {path.name} is not there")
    graph = read_tflite(path)
    data = write_tflite(graph)
    assert_equal(graph, read(data, graph))
    with np.load(DATA / "golden" / f"{name}.npz") as golden:
        x, expected = golden["x"], golden["y_tflm"]
    (result,) = run_micro(data, [x.reshape(-1, *graph.value(graph.inputs[0]).shape)])
    assert np.array_equal(result.reshape(expected.shape), expected)


@pytest.mark.parametrize("package", ["tflite_runtime", "ai_edge_litert"])
@pytest.mark.parametrize("name", ["kws_int8", "kws_float32"])
def test_a_reference_model_written_again_runs_in_tensorflow_lite(name: str, package: str) -> None:
    path = DATA / "models" / f"{name}.tflite"
    if not path.exists():
        pytest.skip(f"the reference model {path.name} is not there")
    graph = read_tflite(path)
    x = random_inputs(graph, 2)
    (ours,), (theirs,) = run(graph, x), run_lite(package, write_tflite(graph), x)
    assert np.allclose(ours, theirs.reshape(ours.shape), atol=1e-4 if "float" in name else 2)
