"""STAIRCASE: its rule, its lowering, where it comes from and where it stands."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from graphs import GraphBuilder, add, conv_2d, fully_connected, mean, pool
from low_bit_cases import samples
from quantize_support import integers_of

from tinydeploy import ops
from tinydeploy.engine import run, run_all
from tinydeploy.errors import DeployError
from tinydeploy.ir.forms import Packed
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.op import Site
from tinydeploy.ir.types import DType, Quantization, Value
from tinydeploy.ops import Activation, Staircase
from tinydeploy.ops.quantize import dequantize_array
from tinydeploy.passes.twin import float_twin
from tinydeploy.quantize import QuantizeOptions, quantize
from tinydeploy.quantize.densities import half_wave_levels
from tinydeploy.quantize.histogram import Histogram
from tinydeploy.quantize.qat_options import QatOptions
from tinydeploy.quantize.recipe import LayerRule, Recipe, Treatment
from tinydeploy.quantize.scales import Activations
from tinydeploy.quantize.schemes import Binary, Linear
from tinydeploy.quantize.staircases import base_steps, few_levels, half_wave_steps

ABC = Activations(3, levels="abc")
LLOYD = Activations(2, levels="lloyd")


def site(x: Quantization | None = None, y: Quantization | None = None) -> Site:
    """Integer where quantizations are given, else float."""
    kinds = [DType.FLOAT32 if q is None else DType.INT8 for q in (x, y)]
    return Site((Value("x", kinds[0], (1, 4), x),), (Value("y", kinds[1], (1, 4), y),))


def every_element() -> Any:
    return np.arange(-128, 128, dtype=np.int8)[np.newaxis]


def test_a_threshold_belongs_to_the_level_above_it() -> None:
    op = Staircase((-1.0, 0.5), (3.0, -2.0, 7.0))
    x = np.array([[-9.0, -1.0, 0.4999, 0.5, 9.0]], np.float32)
    assert op.run_float(site(), [x]).tolist() == [[3.0, -2.0, -2.0, 7.0, 7.0]]


def test_the_integer_rule_counts_thresholds_passed() -> None:
    op = Staircase((-128, -3, 10, 128), (1, 2, 3, 4, 5))
    q = Quantization((0.5,), (0,))
    x = np.array([[-128, -4, -3, 9, 10, 127]], np.int8)
    # The first threshold is always passed, and the last one never.
    assert op.run_integer(site(q, q), [x]).tolist() == [[2, 2, 3, 3, 4, 4]]


@pytest.mark.parametrize("seed", range(20))
def test_lowered_it_does_what_the_float_one_does_on_every_element(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = (
        Quantization((float(np.float32(rng.uniform(0.001, 1))),), (int(rng.integers(-128, 128)),))
        for _ in range(2)
    )
    count = int(rng.integers(1, 16))
    reach = 1.2 * 128 * x.scale
    thresholds = tuple(map(float, np.sort(rng.uniform(-reach, reach, count))))
    levels = tuple(map(float, y.scale * (rng.integers(-128, 128, count + 1) - y.zero_point)))
    op, at = Staircase(thresholds, levels), site(x, y)
    lowered = op.lowered(at)
    lowered.check(at)
    got = dequantize_array(lowered.run_integer(at, [every_element()]), y)
    real = (x.scale * (every_element().astype(np.float64) - x.zero_point)).astype(np.float32)
    np.testing.assert_allclose(got, op.run_float(site(), [real]), rtol=1e-5, atol=1e-6)
    # What files hold, and back.
    assert lowered.real(at).lowered(at) == lowered


@pytest.mark.parametrize(
    ("op", "fact"),
    [
        (Staircase((), (1.0,)), "1 levels with 0 thresholds"),
        (Staircase((0.0,), (1.0,)), "1 levels"),
        (Staircase(tuple(map(float, range(16))), (0.0,) * 17), "1 to 15"),
        (Staircase((1.0, 0.0), (0.0, 1.0, 2.0)), "do not ascend"),
        (Staircase((math.nan,), (0.0, 1.0)), "do not ascend"),
        (Staircase((0.0,), (0.0, math.inf)), "not finite"),
    ],
)
def test_what_is_no_staircase_is_refused(op: Staircase, fact: str) -> None:
    with pytest.raises(DeployError, match=fact):
        op.check(site())


@pytest.mark.parametrize(
    "op",
    [
        Staircase((0.5,), (0, 1)),
        Staircase((0,), (0, 1.5)),
        Staircase((129,), (0, 1)),
        Staircase((0,), (0, 128)),
    ],
)
def test_integers_that_are_none_are_refused(op: Staircase) -> None:
    q = Quantization((1.0,), (0,))
    with pytest.raises(DeployError, match="are not elements of"):
        op.check(site(q, q))


# Where the levels start.


def histogram(x: Any) -> Histogram:
    h = Histogram()
    h.add(np.asarray(x, np.float32))
    return h


def error(op: Staircase, x: Any) -> float:
    return float(((op.run_float(site(), [np.asarray(x, np.float32)]) - x) ** 2).mean())


def test_lloyds_levels_scale_with_the_deviation() -> None:
    x = np.maximum(np.random.default_rng(0).normal(0, 3, 200_000), 0)
    op = half_wave_steps(histogram(x), 2)
    assert op.levels == pytest.approx([0.0, *(3 * q for q in half_wave_levels(2))], rel=0.01)
    assert op.thresholds == pytest.approx(
        [(a + b) / 2 for a, b in zip(op.levels, op.levels[1:], strict=False)]
    )


def test_no_level_of_lloyd_lies_beyond_what_was_seen() -> None:
    op = half_wave_steps(histogram(np.concatenate([np.zeros(10), np.ones(90)])), 3)
    assert op.levels[-1] == pytest.approx(1.0)


@pytest.mark.parametrize("signed", [True, False], ids=["signed", "behind a ReLU"])
@pytest.mark.parametrize("bases", [1, 2, 3, 5, 8])
def test_bases_start_at_least_squares(bases: int, signed: bool) -> None:
    x = np.random.default_rng(bases).normal(0, 2, 50_000)
    x = x if signed else np.maximum(x, 0)
    op = base_steps(histogram(x), bases)
    assert len(op.thresholds) == bases
    # The sum of the coefficients on both sides, or steps from 0 up.
    assert op.levels[0] == pytest.approx(-op.levels[-1] if signed else 0.0)
    assert all(a < b for a, b in zip(op.levels, op.levels[1:], strict=False))
    least = error(op, x)
    for factor in (0.93, 1.07):
        scaled = Staircase(op.thresholds, tuple(factor * v for v in op.levels))
        moved = Staircase(tuple(t + (factor - 1) * 2 for t in op.thresholds), op.levels)
        assert least < error(scaled, x)
        assert least < error(moved, x)


def test_more_bases_are_nearer() -> None:
    x = np.random.default_rng(0).gamma(1.0, 2.0, 20_000)
    errors = [error(base_steps(histogram(x), n), x) for n in (1, 2, 3, 5, 8)]
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("x", [np.zeros(9), np.full(9, 2.0), np.array([0.0, 1e-30]), np.full(9, -3.0)])
def test_odd_data_gives_a_sound_staircase(x: Any) -> None:
    for bases in (1, 3, 8):
        base_steps(histogram(x), bases).check(site())
    if x.min() >= 0:
        half_wave_steps(histogram(x), 2).check(site())


# Where it stands.


def network() -> Graph:
    """Input, convolution with ReLU, convolution, sum of both with ReLU, pool, convolution, mean, layer."""
    b = GraphBuilder(0, is_float=True)
    x = conv_2d(b, shape=(1, 8, 8, 3), outputs=8, activation=Activation.RELU)
    y = conv_2d(b, x=conv_2d(b, x=x, outputs=8), outputs=8)
    y = pool(b, ops.MaxPool2D, x=add(b, inputs=[x, y], activation=Activation.RELU))
    y = conv_2d(b, x=y, outputs=8, activation=Activation.RELU)
    return b.graph(fully_connected(b, x=mean(b, x=y), outputs=5))


def put(how: Activations, rules: tuple[LayerRule, ...] = ()) -> Graph:
    graph = network()
    recipe = Recipe(rules, Treatment(Linear(4), how))
    return quantize(graph, samples(graph), QuantizeOptions(recipe=recipe))


def stairs(graph: Graph) -> list[str]:
    return [n.name for n in graph.nodes if isinstance(n.op, Staircase)]


def test_layers_with_weights_read_the_bases_but_not_the_input_of_the_network() -> None:
    graph = put(ABC)
    assert stairs(graph) == [
        "conv_2d_0/abc3",
        "conv_2d_1/abc3",
        "max_pool_2d_4/abc3",
        "mean_6/abc3",
    ]
    reading = {n.name: n.inputs[0] for n in graph.nodes if n.op.kind in ("CONV_2D", "FULLY_CONNECTED", "ADD")}
    assert reading["conv_2d_0"] == "input_0"
    assert reading["add_3"] == "conv_2d_0"
    # Everything around it keeps eight bits.
    assert all(graph.value(n.outputs[0]).form is None for n in graph.nodes)


def test_lloyds_levels_are_for_what_a_relu_leaves_and_others_stay_even() -> None:
    graph = put(LLOYD)
    assert stairs(graph) == ["conv_2d_0/lloyd2", "max_pool_2d_4/lloyd2", "mean_6/lloyd2"]
    assert graph.value("conv_2d_1").form == Packed(2)
    # What a staircase reads keeps eight bits, the pool in front of it too.
    assert graph.value("max_pool_2d_4").form is None
    assert graph.value("add_3").form is None


def test_layers_that_read_one_tensor_alike_share_its_staircase() -> None:
    b = GraphBuilder(0, is_float=True)
    x = conv_2d(b, shape=(1, 6, 6, 3), outputs=4, activation=Activation.RELU)
    y = [conv_2d(b, x=x, outputs=4) for _ in range(3)]
    graph = b.graph(add(b, inputs=[add(b, inputs=y[:2]), y[2]]))
    other = LayerRule(y[2].name, Treatment(activations=Activations(5, levels="abc")))
    recipe = Recipe((other,), Treatment(activations=ABC))
    assert stairs(few_levels(graph, samples(graph), recipe)) == ["conv_2d_0/abc3", "conv_2d_0/abc5"]


def test_the_ranges_of_training_make_the_levels_of_all_few_bits() -> None:
    graph = network()
    few = Recipe(default=Treatment(Linear(4), Activations(3)), training=QatOptions("abc"))
    eight = Recipe(default=Treatment(Linear(4)), training=QatOptions("abc"))
    assert stairs(few_levels(graph, samples(graph), few)) == stairs(put(ABC))
    assert few_levels(graph, samples(graph), eight) is graph
    assert few.label == "4:abc3"
    signs = Recipe(default=Treatment(Binary(), Activations(3), signs=True), training=QatOptions("abc"))
    assert stairs(few_levels(graph, samples(graph), signs)) == []


def test_levels_of_many_bits_are_refused() -> None:
    with pytest.raises(DeployError, match="2 to 4 are possible"):
        put(Activations(5, levels="lloyd"))


@pytest.mark.parametrize("how", [ABC, LLOYD, Activations(1, levels="abc")], ids=lambda how: how.label)
def test_elements_are_levels_and_the_twin_has_them(how: Activations) -> None:
    graph = put(how)
    x = samples(network(), 8, 3)
    arrays = run_all(graph, integers_of(graph, x))
    for node in graph.nodes:
        if isinstance(node.op, Staircase):
            assert set(np.unique(arrays[node.outputs[0]])) <= set(node.op.levels)
            assert len(np.unique(arrays[node.outputs[0]])) > 1
    twin = float_twin(graph)
    for mine, theirs in zip(graph.nodes, twin.nodes, strict=True):
        if isinstance(mine.op, Staircase):
            assert isinstance(theirs.op, Staircase)
            levels = dequantize_array(np.array(mine.op.levels), graph.value(mine.outputs[0]).quant)
            assert theirs.op.levels == pytest.approx(levels.tolist(), rel=1e-6)
    assert np.isfinite(run(twin, x)[0]).all()
