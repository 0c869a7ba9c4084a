"""Networks of few bits: what quantization makes of them, signs and their padding, and training with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from graphs import GraphBuilder, conv_2d
from low_bit_cases import RECIPES, inside, network, samples
from quantize_support import integers_of

from tinydeploy import ops
from tinydeploy.engine import run, run_all
from tinydeploy.ir.forms import Codebook, Packed, Planes, Signs
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.verify import verify
from tinydeploy.ops import Activation
from tinydeploy.ops.quantize import dequantize_array
from tinydeploy.quantize import QuantizeOptions, quantize
from tinydeploy.quantize.binarize import binarize, levels
from tinydeploy.quantize.histogram import Histogram
from tinydeploy.quantize.recipe import Recipe
from tinydeploy.quantize.schemes import AbcNet, Binary, Linear


def quantized(recipe: Recipe, graph: Graph | None = None) -> Graph:
    graph = network() if graph is None else graph
    return quantize(graph, samples(graph), QuantizeOptions(recipe=recipe))


@pytest.mark.parametrize("name", RECIPES)
def test_elements_stay_within_their_forms(name: str) -> None:
    graph = quantized(RECIPES[name])
    verify(graph)
    arrays = run_all(graph, integers_of(graph, samples(network(), 16, 5)))
    for tensor, x in arrays.items():
        low, high = graph.value(tensor).limits
        assert low <= x.min() and x.max() <= high, tensor
        if isinstance(graph.value(tensor).form, Signs):
            assert set(np.unique(x)) <= {-1, 1}


@pytest.mark.parametrize(
    ("name", "kind"),
    [("linear 4", Packed), ("codebook 3", Codebook), ("ternary everywhere", Planes), ("abc 3", Planes)],
)
def test_the_form_is_that_of_the_scheme(name: str, kind: type) -> None:
    graph = quantized(RECIPES[name])
    assert isinstance(graph.value(str(graph.nodes[2].inputs[1])).form, kind)


def test_inputs_and_outputs_of_the_network_keep_eight_bits() -> None:
    graph = quantized(RECIPES["weights and activations of 4 bits"])
    ends = {*graph.inputs, *graph.outputs}
    for node in graph.nodes:
        for name in node.outputs:
            assert graph.value(name).form == (None if name in ends else Packed(4))


def test_more_bits_bring_outputs_nearer() -> None:
    graph = network()
    x = samples(graph, 64, 3)
    (wanted,) = run(graph, x)

    def error(bits: int) -> float:
        result = quantized(Recipe(default=RECIPES["linear 4"].default.__class__(Linear(bits))))
        (q,) = run(result, integers_of(result, x))
        real = dequantize_array(q, result.value(result.outputs[0]).quant)
        return float(((real - wanted) ** 2).mean())

    errors = [error(bits) for bits in (2, 3, 4, 6, 8)]
    assert errors == sorted(errors, reverse=True)


def histogram(x: Any) -> Histogram:
    h = Histogram()
    h.add(np.asarray(x, np.float32))
    return h


def test_signed_numbers_become_plus_and_minus_their_mean_magnitude() -> None:
    x = np.random.default_rng(0).normal(0, 2, 4000)
    low, high = levels(histogram(x))
    assert high == pytest.approx(np.abs(x).mean(), rel=1e-3)
    assert low == -high
    assert ops.Sign(low, high).quantization.zero_point == 0


def test_numbers_from_zero_up_become_zero_or_the_best_level() -> None:
    x = np.concatenate([np.zeros(500), np.full(300, 2.0), np.full(200, 4.0)])
    low, high = levels(histogram(x))
    assert low == 0.0
    assert high == pytest.approx((300 * 2 + 200 * 4) / 500, rel=1e-3)
    # Minus one stands for zero, so that padding with it is padding with zero.
    assert ops.Sign(low, high).quantization.zero_point == -1


def one_binary_layer(activation: Activation) -> tuple[Graph, Graph]:
    """conv, conv, conv, of which the middle one is binary: the float graph with SIGN, and the integer one."""
    b = GraphBuilder(4, is_float=True)
    x = conv_2d(b, shape=(1, 6, 6, 3), outputs=4, activation=activation)
    x = conv_2d(b, x=x, outputs=4)
    graph = b.graph(conv_2d(b, x=x, outputs=3))
    real = binarize(graph, samples(graph), inside(Binary(), signs=True))
    return real, quantized(inside(Binary(), signs=True), graph)


@pytest.mark.parametrize("activation", [Activation.NONE, Activation.RELU])
def test_binary_convolutions_pad_with_minus_one(activation: Activation) -> None:
    _, graph = one_binary_layer(activation)
    node = next(
        n
        for n in graph.nodes
        if isinstance(graph.value(str(n.inputs[0])).form, Signs) and isinstance(n.op, ops.Conv2D)
    )
    arrays = run_all(graph, integers_of(graph, samples(graph, 2)))
    signs = arrays[f"{graph.nodes[0].outputs[0]}/sign"]
    around = np.pad(signs, [(0, 0), (0, 0), (1, 1), (1, 1), (0, 0)], constant_values=-1).astype(np.int64)
    w = graph.value(str(node.inputs[1])).array.astype(np.int64)
    assert set(np.unique(w)) <= {-1, 1}
    windows = np.lib.stride_tricks.sliding_window_view(around[:, 0], (3, 3), axis=(1, 2))
    x, y = (graph.value(str(n)) for n in (node.inputs[0], node.outputs[0]))
    acc = np.einsum("nhwcij,oijc->nhwo", windows, w)
    p = node.op.parameters(ops_site(graph, node))
    expected = p.requantization.apply(acc + p.folded_bias, y.dtype)
    assert np.array_equal(arrays[y.name][:, 0], expected)
    assert x.quant.zero_point == (0 if activation is Activation.NONE else -1)


def ops_site(graph: Graph, node: Any) -> Any:
    from tinydeploy.ir.verify import site_of

    return site_of(graph, node)


@pytest.mark.parametrize("activation", [Activation.NONE, Activation.RELU])
def test_binary_training_pads_as_the_engine_does(activation: Activation) -> None:
    torch = pytest.importorskip("torch")
    from tinydeploy.trainable import make_trainable

    real, _ = one_binary_layer(activation)
    x = samples(real, 3)
    with torch.no_grad():
        (y,) = make_trainable(real)(torch.from_numpy(x[0]))
    np.testing.assert_allclose(y.numpy(), run(real, x)[0], atol=1e-4)
    arrays = run_all(real, x)
    node = next(n for n in real.nodes if isinstance(n.op, ops.Sign))
    low = node.op.low
    if activation is Activation.NONE:
        padded = next(n for n in real.nodes if isinstance(n.op, ops.Pad))
        assert (arrays[padded.outputs[0]][:, :, 0] == np.float32(low)).all()
    else:
        assert low == 0.0
        assert not any(isinstance(n.op, ops.Pad) for n in real.nodes)


def test_the_gradient_of_a_sign_passes_between_its_levels() -> None:
    torch = pytest.importorskip("torch")
    from tinydeploy.trainable.forward import FORWARD

    x = torch.tensor([-5.0, -1.9, -0.1, 0.0, 1.9, 5.0], requires_grad=True)
    y = FORWARD[ops.Sign](ops.Sign(-1.0, 1.0), None, [x])  # type: ignore[arg-type]
    assert y.tolist() == [-1.0, -1.0, -1.0, 1.0, 1.0, 1.0]
    y.backward(torch.arange(1.0, 7.0))
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 2.0, 3.0, 4.0, 5.0, 0.0]


def test_several_bases_share_one_sum_of_integer_coefficients() -> None:
    graph = quantized(inside(AbcNet(3)))
    node = graph.nodes[2]
    weights = graph.value(str(node.inputs[1]))
    form = weights.form
    assert isinstance(form, Planes)
    x = run_all(graph, integers_of(graph, samples(graph, 2)))[str(node.inputs[0])].astype(np.int64)
    # The sum of each plane by itself, times its coefficient, is the sum of the layer.
    padded = np.pad(
        x[:, 0],
        [(0, 0), (1, 1), (1, 1), (0, 0)],
        constant_values=graph.value(str(node.inputs[0])).quant.zero_point,
    )
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    each = np.einsum("nhwcij,poijc->pnhwo", windows, form.signs.astype(np.int64))
    total = (each * form.coefficients[:, None, None, None, :]).sum(axis=0)
    assert np.array_equal(total, np.einsum("nhwcij,oijc->nhwo", windows, weights.array.astype(np.int64)))
    bound = (np.abs(each) * np.abs(form.coefficients[:, None, None, None, :].astype(np.int64))).sum(axis=0)
    assert bound.max() <= 2**31 - 1


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_training_of_every_scheme_evaluates_as_the_engine_does(name: str) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    from tinydeploy.finetune import TrainOptions, finetune
    from tinydeploy.quantize.qat import make_quantized_trainable

    graph = network()
    x = samples(graph, 96)[0]
    y = np.random.default_rng(7).integers(0, 5, 96)
    module = make_quantized_trainable(graph, [x], recipe=RECIPES[name])
    result = finetune(module, x, y, TrainOptions(epochs=2, learning_rate=5e-3))
    assert result.epochs[1].loss < result.epochs[0].loss
    lowered = module.to_quantized_graph()
    verify(lowered)
    (q,) = run(lowered, integers_of(lowered, [x]))
    (real,) = module(torch.from_numpy(x))
    assert np.array_equal(real.numpy(), dequantize_array(q, lowered.value(lowered.outputs[0]).quant))
    forms = {v.name: type(v.form) for v in quantized(RECIPES[name]).constants()}
    assert {v.name: type(v.form) for v in lowered.constants()} == forms
