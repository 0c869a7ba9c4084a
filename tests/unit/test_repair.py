"""Repair after quantization: what each method leaves as it was, and what it makes better."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from graphs import (
    GraphBuilder,
    add,
    conv_2d,
    depthwise_conv_2d,
    fully_connected,
    mean,
    pad,
    pool,
    random_inputs,
    relu,
    reshape,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from tinydeploy import ops
from tinydeploy.engine import run, run_all
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import Array, constant
from tinydeploy.ops import Activation
from tinydeploy.quantize import Range, calibrate, layer_errors, quantize
from tinydeploy.repair import correct_biases, correct_biases_analytically, equalize
from tinydeploy.repair.bias import mean_error
from tinydeploy.repair.equalize import pairs
from tinydeploy.repair.moments import Moments, activation_moments, clipped_normal
from tinydeploy.repair.walk import Step, walk

RELU = Activation.RELU


def chain(seed: int, *, uneven: float = 1.0, last: Activation = RELU) -> Graph:
    """Every kind of layer that a scale may pass, with channels of very different size."""
    b = GraphBuilder(seed, is_float=True)
    x = conv_2d(b, shape=(1, 8, 8, 3), outputs=8, activation=RELU)
    x = depthwise_conv_2d(b, x=x, multiplier=2, activation=RELU)
    x = conv_2d(b, x=pad(b, x=x), outputs=12, groups=2)
    x = pool(b, ops.MaxPool2D, x=relu(b, x=x))
    x = conv_2d(b, x=x, outputs=6, activation=last)
    x = pool(b, ops.AveragePool2D, x=x)
    graph = b.graph(fully_connected(b, x=reshape(b, x=x, to=(1, x.elements)), outputs=5))
    rng, values = np.random.default_rng(seed), dict(graph.values)
    for node in graph.nodes:
        if isinstance(node.op, ops.Conv2D):
            name = str(node.inputs[1])
            w = values[name].array
            factors = uneven ** rng.uniform(-1, 1, (len(w), 1, 1, 1))
            values[name] = constant(name, (w * factors).astype(np.float32))
    return replace(graph, values=values)


def largest(x: Array, axis: int) -> Array:
    return np.abs(x).max(axis=tuple(a for a in range(x.ndim) if a != axis))


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([1.0, 10.0, 100.0]))
def test_equalization_leaves_the_function_as_it_was(seed: int, uneven: float) -> None:
    graph = chain(seed, uneven=uneven)
    x = random_inputs(graph, 4)
    before, after = run(graph, x)[0], run(equalize(graph), x)[0]
    assert np.abs(before - after).max() <= 1e-4 * np.abs(before).max()


def test_every_pair_of_the_chain_is_found() -> None:
    graph = chain(0)
    found = [(p.first.op.kind, p.second.op.kind) for p in pairs(graph)]
    conv, depthwise, dense = "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"
    assert found == [(conv, depthwise), (depthwise, conv), (conv, conv), (conv, dense)]


def test_equalized_ranges_meet_channel_by_channel() -> None:
    b = GraphBuilder(3, is_float=True)
    x = conv_2d(b, shape=(1, 6, 6, 3), outputs=8, activation=RELU)
    graph = b.graph(conv_2d(b, x=x, outputs=4))
    first, second = (equalize(graph).value(str(n.inputs[1])).array for n in graph.nodes)
    assert largest(first, 0) == pytest.approx(largest(second, 3), rel=1e-2)
    before, after = (graph.value(str(n.inputs[1])).array for n in graph.nodes)
    assert largest(before, 0) != pytest.approx(largest(after, 3), rel=1e-1)


def test_equalization_pays_where_a_tensor_has_channels_of_unlike_size() -> None:
    graph = chain(3, uneven=100.0)
    x = random_inputs(graph, 60)
    plain, better = (layer_errors(g, quantize(g, x), x)[-1].sqnr_db for g in (graph, equalize(graph)))
    assert better > plain + 6.0


@pytest.mark.parametrize("last", [Activation.RELU6, Activation.RELU_N1_TO_1])
def test_a_clamp_at_a_number_is_in_the_way(last: Activation) -> None:
    found = [p.second.op.kind for p in pairs(chain(0, last=last))]
    assert "FULLY_CONNECTED" not in found


def test_relu6_that_is_never_reached_is_relu_and_one_that_is_stays() -> None:
    graph = chain(0, last=Activation.RELU6)
    clamped = next(n for n in graph.nodes if getattr(n.op, "activation", None) is Activation.RELU6)
    for high, expected in ((5.9, RELU), (6.0, Activation.RELU6)):
        ranges = {clamped.outputs[0]: Range(0.0, high)}
        node = next(n for n in equalize(graph, ranges).nodes if n.name == clamped.name)
        assert isinstance(node.op, ops.Conv2D)
        assert node.op.activation is expected


def test_a_tensor_that_two_layers_read_is_left_alone() -> None:
    b = GraphBuilder(0, is_float=True)
    x = conv_2d(b, shape=(1, 6, 6, 4), outputs=4, activation=RELU)
    graph = b.graph(add(b, inputs=[x, conv_2d(b, x=x, outputs=4)]))
    assert not list(pairs(graph))
    equalized = equalize(graph)
    for value in graph.constants():
        assert np.array_equal(value.array, equalized.value(value.name).array)


def test_a_channel_without_weights_is_not_divided_by_zero() -> None:
    graph = chain(0)
    name = str(graph.nodes[0].inputs[1])
    data = graph.value(name).array.copy()
    data[2] = 0.0
    graph = replace(graph, values={**graph.values, name: constant(name, data)})
    x = random_inputs(graph, 4)
    assert run(equalize(graph), x)[0] == pytest.approx(run(graph, x)[0], rel=1e-3, abs=1e-3)


def test_batch_norm_scales_follow_their_channels() -> None:
    graph = chain(2, uneven=10.0)
    node = graph.nodes[0]
    graph = replace(graph, norm_scales={node.name: np.ones(8, np.float32)})
    equalized = equalize(graph)
    name = str(node.inputs[1])
    shrunk = largest(graph.value(name).array, 0) / largest(equalized.value(name).array, 0)
    assert 1.0 / equalized.norm_scales[node.name] == pytest.approx(shrunk, rel=1e-3)


def errors_by_layer(real: Graph, integer: Graph, x: list[Array]) -> dict[str, Array]:
    """The mean error of each channel in steps of the integer bias."""
    found = {}

    def look(step: Step) -> tuple[object, ...]:
        bias = step.integer_site.input(2)
        found[step.real.name] = mean_error(step) / np.array(bias.quant.scales)
        return step.integer_site.input(1), bias

    walk(real, integer, x, look)  # type: ignore[arg-type]
    return found


def test_bias_correction_leaves_no_mean_error_on_its_samples() -> None:
    graph = chain(4, uneven=5.0)
    x = random_inputs(graph, 50)
    plain = quantize(graph, x)
    before = errors_by_layer(graph, plain, x)
    after = errors_by_layer(graph, correct_biases(graph, plain, x), x)
    assert max(np.abs(e).max() for e in before.values()) > 5.0
    # Half a step of rounding, and float32 sums.
    assert max(np.abs(e).max() for e in after.values()) < 0.6


def test_a_layer_without_a_bias_gets_one() -> None:
    b = GraphBuilder(5, is_float=True)
    x = conv_2d(b, shape=(1, 6, 6, 3), outputs=8, activation=RELU, bias=False)
    graph = b.graph(fully_connected(b, x=reshape(b, x=x, to=(1, x.elements)), outputs=4, bias=False))
    x_ = random_inputs(graph, 40)
    corrected = correct_biases(graph, quantize(graph, x_), x_)
    assert all(len(n.inputs) == 3 for n in corrected.nodes if not isinstance(n.op, ops.Reshape))
    errors = errors_by_layer(graph, corrected, x_)
    assert max(np.abs(e).max() for e in errors.values()) < 0.6


def test_weights_that_two_layers_share_keep_one_bias_each() -> None:
    b = GraphBuilder(6, is_float=True)
    x = conv_2d(b, shape=(1, 6, 6, 4), outputs=4, activation=RELU)
    graph = b.graph(conv_2d(b, x=x, outputs=4))
    first, second = graph.nodes
    graph = replace(graph, nodes=(first, replace(second, inputs=(second.inputs[0], *first.inputs[1:]))))
    x_ = random_inputs(graph, 40)
    corrected = correct_biases(graph, quantize(graph, x_), x_)
    assert max(np.abs(e).max() for e in errors_by_layer(graph, corrected, x_).values()) < 0.6


@pytest.mark.parametrize(("low", "high"), [(0.0, None), (0.0, 6.0), (-1.0, 1.0), (None, None)])
def test_moments_of_a_clipped_normal_are_those_of_a_simulation(low: float | None, high: float | None) -> None:
    means, deviations = np.array([-2.0, 0.0, 0.5, 4.0]), np.array([1.0, 2.0, 0.3, 3.0])
    x = np.random.default_rng(0).normal(means, deviations, (400_000, 4))
    y = x if low is None and high is None else np.clip(x, low, high)
    found = clipped_normal(Moments(means, deviations**2), low, high)
    assert found.mean == pytest.approx(y.mean(axis=0), abs=0.02)
    assert found.variance == pytest.approx(y.var(axis=0), rel=0.02, abs=0.002)


def test_computed_means_are_near_measured_ones() -> None:
    b = GraphBuilder(7, is_float=True)
    x = conv_2d(b, shape=(1, 12, 12, 3), outputs=8, kernel=(1, 1), activation=RELU)
    y = depthwise_conv_2d(b, x=x, kernel=(1, 1), activation=RELU)
    z = mean(b, x=add(b, inputs=[x, y]))
    graph = b.graph(fully_connected(b, x=z, outputs=4))
    inputs = random_inputs(graph, 200)
    moments = activation_moments(graph, inputs)
    for name, array in run_all(graph, inputs).items():
        rows = array.reshape(-1, array.shape[-1]).astype(np.float64)
        spread = float(rows.std()) + 1e-3
        means = moments[name].mean.reshape(-1, array.shape[-1]).mean(axis=0)
        assert np.abs(means - rows.mean(axis=0)).max() < 0.1 * spread, name


def test_computed_means_hold_at_the_border_and_for_uneven_images() -> None:
    b = GraphBuilder(11, is_float=True)
    graph = b.graph(conv_2d(b, shape=(1, 6, 4, 2), outputs=3, kernel=(5, 3)))
    inputs = random_inputs(graph, 50)
    inputs[0] += np.arange(4, dtype=np.float32)[:, None] ** 2
    found = activation_moments(graph, inputs)[graph.outputs[0]]
    assert found.mean == pytest.approx(run(graph, inputs)[0].mean(axis=0), abs=1e-3)


def test_analytic_correction_takes_the_error_of_the_weights_out() -> None:
    # One layer with inputs far from zero: the mean error is that of its weights alone.
    b = GraphBuilder(8, is_float=True)
    graph = b.graph(fully_connected(b, shape=(1, 40), outputs=6))
    x = [a + 3.0 for a in random_inputs(graph, 200)]
    plain = quantize(graph, x)
    before = errors_by_layer(graph, plain, x)["fully_connected_0"]
    after = errors_by_layer(graph, correct_biases_analytically(graph, plain, x), x)["fully_connected_0"]
    assert np.abs(after).max() < 0.3 * np.abs(before).max()


def test_layers_with_unknown_inputs_are_left_by_the_analytic_correction() -> None:
    b = GraphBuilder(9, is_float=True)
    x = pool(b, ops.MaxPool2D, x=conv_2d(b, shape=(1, 8, 8, 3), outputs=4, activation=RELU))
    graph = b.graph(conv_2d(b, x=x, outputs=4))
    inputs = random_inputs(graph, 30)
    plain = quantize(graph, inputs)
    corrected = correct_biases_analytically(graph, plain, inputs)
    name = str(plain.nodes[-1].inputs[2])
    assert np.array_equal(plain.value(name).array, corrected.value(name).array)


def test_what_is_repaired_is_calibrated_as_before() -> None:
    graph = chain(10)
    x = random_inputs(graph, 20)
    assert calibrate(equalize(graph), x)[graph.outputs[0]].high == pytest.approx(
        calibrate(graph, x)[graph.outputs[0]].high, rel=1e-3
    )
