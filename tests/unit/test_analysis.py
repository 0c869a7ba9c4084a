"""The analysis of a graph: noise measured and predicted, integer models beside their float twins."""

from __future__ import annotations

import math

import numpy as np
import pytest
from graphs import GraphBuilder, add, conv_2d, every_op_graph, fully_connected, mean, random_inputs, softmax

from tinydeploy.analysis import analyze
from tinydeploy.engine import run
from tinydeploy.errors import DeployError
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import Array
from tinydeploy.ops import Activation
from tinydeploy.passes.twin import float_twin
from tinydeploy.quantize import QuantizeOptions, layer_errors, quantize
from tinydeploy.quantize.recipe_file import make_recipe


def residual(seed: int = 0) -> Graph:
    b = GraphBuilder(seed, is_float=True)
    x = conv_2d(b, shape=(1, 9, 9, 3), outputs=8, activation=Activation.RELU)
    y = conv_2d(b, x=x, outputs=8)
    x = add(b, inputs=[x, y], activation=Activation.RELU)
    return b.graph(softmax(b, x=fully_connected(b, x=mean(b, x=x), outputs=5)))


@pytest.fixture(scope="module")
def samples() -> list[Array]:
    return random_inputs(residual(), 40)


def test_measured_noise_is_that_of_the_integer_engine(samples: list[Array]) -> None:
    graph = residual()
    found = {t.name: t for t in analyze(graph, samples).tensors}
    for error in layer_errors(graph, quantize(graph, samples), samples):
        assert found[error.name].sqnr_db == pytest.approx(error.sqnr_db, abs=0.01)


def options(bits: str | None = None, scheme: str | None = None) -> QuantizeOptions:
    return QuantizeOptions(recipe=make_recipe(bits, scheme))


@pytest.mark.parametrize("bits", ["8:8", "6:6", "4:8", "8:4"])
def test_prediction_is_near_measurement_where_many_sums_average_it(samples: list[Array], bits: str) -> None:
    result = analyze(residual(), samples, options(bits))
    for t in result.tensors:
        assert t.sqnr_db is not None
        if t.predicted_db is None:
            assert "softmax" in t.name
        elif t.elements > 5000 or t.kind == "weights":
            # Eight means and five sums of a sample are one draw of the weights' noise.
            assert t.predicted_db == pytest.approx(t.sqnr_db, abs=3.0), t.name


def test_a_bit_is_worth_six_decibels(samples: list[Array]) -> None:
    coarse, fine = (analyze(residual(), samples, options(b)).tensors for b in ("5:5", "7:7"))
    gained: list[float] = []
    for few, many in zip(coarse, fine, strict=True):
        # What no layer with weights reads keeps eight bits.
        if few.bits < 8:
            assert (few.bits, many.bits) == (5, 7)
            gained.append((many.sqnr_db or 0) - (few.sqnr_db or 0))
    assert np.mean(gained) == pytest.approx(12.04, abs=2.0)


@pytest.mark.parametrize(("scheme", "bits"), [("codebook:3", 3), ("ternary", 2), ("abc:3", 3), ("binary", 1)])
def test_every_scheme_is_measured_by_its_stored_bits(samples: list[Array], scheme: str, bits: int) -> None:
    result = analyze(residual(), samples, options(scheme=scheme))
    inner = next(t for t in result.tensors if t.kind == "weights" and t.bits != 8)
    assert inner.bits == bits
    assert inner.rounding_db is None
    assert 0.0 < (inner.sqnr_db or 0) < 25.0
    by_name = {layer.layer.node.name: layer for layer in result.layers}
    assert by_name["conv_2d_1"].layer.weight_bits == bits
    assert result.costs.average_weight_bits < 8


def test_an_integer_model_is_compared_with_the_float_network_of_its_own_weights(samples: list[Array]) -> None:
    integer = quantize(residual(), samples)
    result = analyze(integer, samples)
    of_float = {t.name: t for t in analyze(residual(), samples).tensors}
    for t in result.tensors:
        if t.kind == "weights":
            assert t.sqnr_db is None
            assert t.rounding_db == pytest.approx(of_float[t.name].rounding_db, abs=0.01)
        else:
            # Without the noise of the weights there is less of it, or hardly more.
            assert (t.sqnr_db or 0) > (of_float[t.name].sqnr_db or 0) - 1.0
    assert any("not known" in note for note in result.notes)
    assert all(layer.proved_bits is not None for layer in result.layers)


def test_the_float_twin_computes_what_the_integer_graph_stands_for() -> None:
    graph = every_op_graph(0, is_float=True)
    x = random_inputs(graph, 20)
    twin = float_twin(quantize(graph, x))
    assert not twin.is_integer
    assert [n.name for n in twin.nodes] == [n.name for n in graph.nodes]
    for a, b in zip(run(graph, x), run(twin, x), strict=True):
        assert np.abs(a - b).max() < 0.05 * max(float(np.abs(a).max()), 1.0)


def test_without_data_only_weights_are_judged() -> None:
    result = analyze(residual())
    assert result.samples == 0
    assert {t.kind for t in result.tensors} == {"weights"}
    assert all(t.sqnr_db == pytest.approx(t.rounding_db, abs=1.0) for t in result.tensors)
    assert all(layer.full_range_db is None and layer.proved_bits is None for layer in result.layers)
    assert any("--data" in note for note in result.notes)


def test_the_proved_accumulator_is_never_wider_than_the_formula(samples: list[Array]) -> None:
    for layer in analyze(residual(), samples).layers:
        assert layer.proved_bits is not None
        # A bias may take one bit more than the products.
        assert layer.proved_bits <= layer.accumulator_bits + 1


def test_a_silent_tensor_has_no_noise_and_json_has_no_infinity() -> None:
    result = analyze(residual(), [np.zeros((4, 1, 9, 9, 3), np.float32)])
    tensor = next(t for t in result.tensors if t.name == "input_0")
    assert tensor.sqnr_db == math.inf
    assert tensor.to_json()["sqnr_db"] is None
    assert tensor.kl_forward == 0.0


def test_data_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DeployError, match="the model takes"):
        analyze(residual(), [np.zeros((4, 1, 8, 9, 3), np.float32)])
