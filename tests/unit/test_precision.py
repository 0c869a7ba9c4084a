"""Bits chosen by layer: the rule from gains to bits; gains, traces and sensitivities of known networks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from graphs import GraphBuilder, add, conv_2d, fully_connected, mean, random_inputs, softmax
from hypothesis import given
from hypothesis import strategies as st

from tinydeploy.engine import run
from tinydeploy.errors import DeployError
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import Array, constant
from tinydeploy.ops import Activation
from tinydeploy.precision.activations import rounded, shared_activations
from tinydeploy.precision.allocate import allocate, bound, least_bits, offsets, uniform
from tinydeploy.precision.sensitivity import activation_sensitivity, layer_sensitivity
from tinydeploy.quantize import QuantizeOptions, quantize
from tinydeploy.quantize.calibrate import calibrate
from tinydeploy.quantize.recipe_file import make_recipe
from tinydeploy.quantize.scales import Range

GAINS = st.dictionaries(st.text(min_size=1, max_size=3), st.floats(1e-6, 1e6), min_size=1, max_size=6)


def test_four_times_the_gain_is_one_bit_more() -> None:
    assert offsets({"a": 1.0, "b": 4.0, "c": 64.0, "d": 0.0}) == {"a": 0, "b": 1, "c": 3, "d": 0}


def test_the_bound_by_hand() -> None:
    # Three bits over [-1, 1] have the step 1/4, two bits 1/2.
    assert bound({"a": 2.0, "b": 1.0}, {"a": 3, "b": 2}) == 2.0 / 16 + 1.0 / 4


@given(GAINS)
def test_with_their_offsets_all_tensors_add_about_the_same(gains: dict[str, float]) -> None:
    found = allocate(gains, 4, least=1, most=64)
    parts = [bound({name: gain}, found.bits) for name, gain in gains.items()]
    # Half a bit of rounding up or down is a factor of two of the power either way.
    assert max(parts) <= 4.0001 * min(parts)


@given(GAINS, st.floats(1e-4, 0.5))
def test_the_least_bits_meet_the_loss_and_one_less_does_not(gains: dict[str, float], loss: float) -> None:
    for per_tensor in (True, False):
        found = least_bits(gains, loss, per_tensor=per_tensor)
        assert found is not None
        assert bound(gains, found.bits) == found.bound <= loss
        fewer = allocate(gains, found.base - 1, least=1, most=32) if per_tensor else None
        if fewer is None and found.base > 1:
            fewer = uniform(gains, found.base - 1)
        if fewer is not None and fewer.bits != found.bits:
            assert fewer.bound > loss


def test_bits_that_cannot_be_stored_are_not_given_and_their_loss_is_counted() -> None:
    gains = {"a": 1.0, "b": 4.0**10}
    found = allocate(gains, 3)
    assert found.bits == {"a": 3, "b": 8}
    assert found.bound == bound(gains, found.bits)
    assert least_bits(gains, 1e-9, per_tensor=True, least=2, most=8) is None


def network(seed: int = 0) -> Graph:
    b = GraphBuilder(seed, is_float=True)
    x = conv_2d(b, shape=(1, 6, 6, 2), outputs=6, activation=Activation.RELU)
    x = conv_2d(b, x=x, outputs=6, activation=Activation.RELU)
    return b.graph(softmax(b, x=fully_connected(b, x=mean(b, x=x), outputs=4)))


def test_sensitivity_falls_with_bits_and_is_that_of_one_layer() -> None:
    graph = network()
    found = layer_sensitivity(graph, random_inputs(graph, 20), (2, 4, 8))
    assert list(found) == ["conv_2d_0", "conv_2d_1", "fully_connected_3"]
    for two, four, eight in found.values():
        assert two < four < eight
        assert eight > 35.0


def test_sensitivity_of_activations_falls_with_bits_and_counts_copies_once() -> None:
    graph = network()
    x = random_inputs(graph, 20)
    shared = shared_activations(graph, calibrate(graph, x))
    found = activation_sensitivity(graph, x, shared, (2, 4, 8))
    # What SOFTMAX reads is the last; its output is fixed, and the input is the caller's.
    assert list(found) == [n.outputs[0] for n in graph.nodes[:-1]]
    for two, four, eight in found.values():
        assert two < four < eight
        assert eight > 35.0


def test_numbers_of_few_bits_lie_on_the_grid_of_their_range() -> None:
    x = np.linspace(-2.0, 4.0, 50, dtype=np.float32)
    two = rounded(x, Range(-1.0, 2.0), 2)
    assert sorted(set(two.tolist())) == [-1.0, 0.0, 1.0, 2.0]
    assert np.abs(rounded(x, Range(-2.0, 4.0), 8) - x).max() <= 0.51 * 6.0 / 255


def test_a_tensor_that_two_layers_read_adds_to_the_bound_once() -> None:
    pytest.importorskip("torch", reason="PyTorch (the extra train) is not installed")
    from tinydeploy.precision.choice import choose

    b = GraphBuilder(0, is_float=True)
    x = conv_2d(b, shape=(1, 6, 6, 2), outputs=6, activation=Activation.RELU)
    y = add(b, inputs=[conv_2d(b, x=x, outputs=6), conv_2d(b, x=x, outputs=6)])
    graph = b.graph(fully_connected(b, x=mean(b, x=y), outputs=4))
    found = choose(graph, random_inputs(graph, 8), None, 0.5)
    assert found.mixed is not None
    assert found.uniform is not None
    assert len(found.mixed.bits) == 4 + 3
    first, left, right, _ = (layer.gain for layer in found.layers)
    assert left.reads == right.reads != first.reads
    assert left.activations == right.activations
    gains = [g.weights for g in (first, left, right, found.layers[3].gain)]
    gains += [g.activations for g in (first, left, found.layers[3].gain)]
    assert found.uniform.bound == pytest.approx(sum(gains) * 4.0 ** (1 - found.uniform.base))


def test_gains_of_a_linear_classifier_by_hand() -> None:
    pytest.importorskip("torch", reason="PyTorch (the extra train) is not installed")
    from tinydeploy.precision.gains import noise_gains

    b = GraphBuilder(0, is_float=True)
    graph = b.graph(fully_connected(b, shape=(1, 3), outputs=2, bias=False))
    w = np.array([[1.0, -2.0, 0.5], [0.5, 1.0, 0.0]], np.float32)
    graph = replace(graph, values={**graph.values, "weights_1": constant("weights_1", w)})
    x = np.array([1.0, -1.0, 2.0], np.float32)
    (gain,) = noise_gains(graph, [x.reshape(1, 1, 3)])
    # The logits are 4 and -0.5: one margin of 4.5. Its gradient is w1 - w0 by x, and x and -x by the rows.
    margin = 24 * 4.5**2
    half = (2.0 + 1.0) / 2
    assert gain.activations == pytest.approx(float(np.sum((w[1] - w[0]) ** 2)) * half**2 / margin, rel=1e-5)
    assert gain.weights == pytest.approx(float(np.sum(x**2)) * (2.0**2 + 1.0**2) / margin, rel=1e-5)


def test_the_bound_holds_for_the_share_of_other_decisions() -> None:
    pytest.importorskip("torch", reason="PyTorch (the extra train) is not installed")
    from tinydeploy.precision.gains import noise_gains

    graph = network(3)
    x = random_inputs(graph, 60)
    gains = {f"{g.name}/w": g.weights for g in noise_gains(graph, x)}
    gains |= {f"{g.name}/a": g.activations for g in noise_gains(graph, x)}
    decided = run(graph, x)[0].reshape(60, -1).argmax(axis=1)
    for bits in (4, 6, 8):
        integer = quantize(graph, x, QuantizeOptions(recipe=make_recipe(f"{bits}:{bits}")))
        q = [_integers(integer, x)]
        other = run(integer, q)[0].reshape(60, -1).argmax(axis=1)
        assert np.mean(other != decided) <= uniform(gains, bits).bound + 0.05


def _integers(graph: Graph, x: list[Array]) -> Array:
    from quantize_support import integers_of

    return integers_of(graph, x)[0]


def test_a_network_that_decides_nothing_is_refused() -> None:
    pytest.importorskip("torch", reason="PyTorch (the extra train) is not installed")
    from tinydeploy.precision.gains import noise_gains

    b = GraphBuilder(0, is_float=True)
    graph = b.graph(fully_connected(b, shape=(1, 3), outputs=1))
    with pytest.raises(DeployError, match="need a decision"):
        noise_gains(graph, random_inputs(graph, 2))


def test_the_trace_of_a_linear_least_squares_problem_is_exact() -> None:
    pytest.importorskip("torch", reason="PyTorch (the extra train) is not installed")
    from tinydeploy.precision.hessian import hessian_traces

    b = GraphBuilder(0, is_float=True)
    graph = b.graph(fully_connected(b, shape=(1, 5), outputs=3))
    x = np.random.default_rng(0).normal(0, 1, (40, 1, 5)).astype(np.float32)
    y = np.random.default_rng(1).normal(0, 1, (40, 3)).astype(np.float32)
    found = hessian_traces(graph, x, y, vectors=400)["fully_connected_0"]
    # The mean over 40 * 3 outputs of (w x - y)^2: each row has the Hessian 2 / 120 * sum x x^T.
    exact = 3 * 2.0 / 120 * float(np.sum(x**2)) / 15
    assert found == pytest.approx(exact, rel=0.05)
    assert hessian_traces(graph, x, y, vectors=2) == hessian_traces(graph, x, y, vectors=2)


def test_the_trace_of_an_activation_is_the_mean_over_samples() -> None:
    pytest.importorskip("torch", reason="PyTorch (the extra train) is not installed")
    from tinydeploy.precision.hessian import activation_traces

    b = GraphBuilder(0, is_float=True)
    hidden = fully_connected(b, shape=(1, 5), outputs=4)
    graph = b.graph(fully_connected(b, x=hidden, outputs=3))
    x = np.random.default_rng(0).normal(0, 1, (40, 1, 5)).astype(np.float32)
    y = np.random.default_rng(1).normal(0, 1, (40, 3)).astype(np.float32)
    name = graph.nodes[0].outputs[0]
    found = activation_traces(graph, x, y, [name], vectors=50)[name]
    # The mean over 3 outputs of (w h - y)^2 has the Hessian 2 / 3 w^T w in h, for every sample.
    w = graph.value(str(graph.nodes[1].inputs[1])).array
    assert found == pytest.approx(2.0 / 3 * float(np.sum(w**2)) / 4, rel=0.05)
