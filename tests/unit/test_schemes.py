"""The quantization schemes against examples worked by hand, and what holds for all of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from tinydeploy.errors import DeployError
from tinydeploy.ir.form_check import unfit
from tinydeploy.ir.forms import Codebook, Packed, Planes
from tinydeploy.ir.types import Quantization, constant
from tinydeploy.numerics import INT32_MAX
from tinydeploy.quantize.scales import Activations, Range, activation_quantization
from tinydeploy.quantize.schemes import (
    AbcNet,
    Binary,
    KMeans,
    Linear,
    Scheme,
    Ternary,
    abc_net,
    folded,
    parse_scheme,
)
from tinydeploy.quantize.schemes.linear import integers, scale_of_largest
from tinydeploy.quantize.weights import quantize_linear

F = np.float32
ALL: list[Scheme] = [
    *(Linear(bits) for bits in range(2, 9)),
    Linear(4, full=True),
    Linear(2, full=True),
    Linear(3, per_tensor=True),
    *(KMeans(bits) for bits in (1, 4, 7)),
    Binary(),
    Ternary(),
    *(AbcNet(planes) for planes in (1, 3, 8)),
]


def label(scheme: Any) -> str:
    return repr(scheme)


def real(scheme: Scheme, weights: Any, axis: int = 0) -> Any:
    """The real numbers that the integers of a scheme stand for."""
    c = quantize_linear(weights, None, axis, 1.0, scheme)
    shape = [1] * weights.ndim
    shape[axis] = -1
    return c.weights * np.array(c.scales).reshape(shape)


def test_abc_net_three_bases_of_four_weights() -> None:
    w = np.array([[-0.135, 0.125], [-0.065, 0.075]])
    assert w.std(ddof=1) == pytest.approx(0.12, abs=0.005)
    found = abc_net.bases(w, 0.0, 0.12, np.array([-1.0, 0.0, 1.0]))
    assert found.tolist() == [[[-1, 1], [-1, -1]], [[-1, 1], [-1, 1]], [[-1, 1], [1, 1]]]
    alpha = np.array([0.0275, 0.07, 0.0325])
    assert np.allclose(np.tensordot(alpha, found, 1), [[-0.13, 0.13], [-0.065, 0.075]])
    # Those coefficients are the ones of the least squares.
    flat = found.reshape(3, 1, 4)
    assert np.allclose(abc_net.coefficients(w.reshape(1, 4), flat)[:, 0], alpha, atol=1e-6)


def test_two_bit_symmetric_integers_and_their_straight_through_gradient() -> None:
    w = np.array([[-2.0, 1.5, 0.5, 2.0]])
    two = Linear(2, fitting="max").fit(w)
    assert two.lower(two.scales).rows.tolist() == [[-1, 1, 0, 1]]
    torch = pytest.importorskip("torch")
    from tinydeploy.quantize.methods.straight import straight_through

    x = torch.tensor(w, dtype=torch.float32, requires_grad=True)
    y = straight_through(Linear(2, fitting="max"), x, 0)
    assert y.tolist() == [[-2.0, 2.0, 0.0, 2.0]]
    given = torch.tensor([[0.2, 0.3, 0.4, 0.5]])
    y.backward(given)
    assert torch.equal(x.grad, given)


A, B = np.array([[-2.2, -1.1, 1.1, 2.2]]), np.array([[0.5, 0.3, 0.3, 0.5]])


def product_of_integers(*, full: bool) -> tuple[list[int], list[int], float]:
    """A and B in four bits with the scale of their largest element, and their dequantized product."""
    limits = Linear(4, full=full).limits
    found = []
    scale = 1.0
    for x in (A, B):
        s = scale_of_largest(np.abs(x).max(axis=1), 4, full=full)
        found.append(integers(x, s, limits)[0])
        scale *= float(s[0])
    return found[0].tolist(), found[1].tolist(), float(found[0] @ found[1]) * scale


def test_full_range_weights_break_the_symmetry_of_a_product_that_is_zero() -> None:
    a, b, product = product_of_integers(full=True)
    assert (a, b) == ([-8, -4, 4, 7], [7, 5, 5, 7])
    assert np.dot(a, b) == -7
    assert product == pytest.approx(-0.12, abs=0.001)


def test_restricted_weights_keep_the_symmetry_of_a_product_that_is_zero() -> None:
    a, b, product = product_of_integers(full=False)
    assert (min(*a, *b), max(*a, *b)) == (-7, 7)
    assert np.dot(a, b) == 0
    assert product == 0.0


@pytest.mark.parametrize("bits", range(2, 9))
@settings(deadline=None, derandomize=True, max_examples=60)
@given(low=st.floats(-1e6, 0), high=st.floats(1e-3, 1e6))
def test_affine_scale_and_zero_point_hold_real_zero_exactly(bits: int, low: float, high: float) -> None:
    how = Activations(bits)
    q_min, q_max = how.limits
    quant = activation_quantization(Range.of(low, high), how=how)
    assert quant.scale == pytest.approx((high - low) / (q_max - q_min), rel=1e-6)
    assert abs(quant.zero_point - (q_min - low / quant.scale)) <= 0.5 + 1e-4
    # The integer of the real number zero stands for zero, and for nothing else.
    assert q_min <= quant.zero_point <= q_max
    assert quant.scale * (quant.zero_point - quant.zero_point) == 0.0


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_symmetric_activations_have_no_zero_point_and_span_both_ends(bits: int) -> None:
    quant = activation_quantization(Range(-1.0, 3.0), how=Activations(bits, symmetric=True))
    assert quant.zero_point == 0
    assert quant.scale == pytest.approx(3.0 / ((1 << (bits - 1)) - 1))


@pytest.mark.parametrize("bits", range(1, 8))
@settings(deadline=None, derandomize=True, max_examples=30)
@given(nps.arrays(F, (3, 50), elements=st.floats(-10, 10, width=32)))
def test_an_n_bit_codebook_leaves_at_most_two_to_the_n_values(bits: int, weights: Any) -> None:
    c = quantize_linear(weights, None, 0, 1.0, KMeans(bits))
    assert len(np.unique(c.weights)) <= 1 << bits
    assert isinstance(c.form, Codebook)
    assert len(c.form.table) <= 1 << bits


@pytest.mark.parametrize("scheme", ALL, ids=label)
@pytest.mark.parametrize(("shape", "axis"), [((6, 3, 3, 4), 0), ((1, 3, 3, 6), 3), ((5, 1), 0)])
def test_every_scheme_lowers_to_what_its_form_can_hold(
    scheme: Scheme, shape: tuple[int, ...], axis: int
) -> None:
    weights = np.random.default_rng(1).normal(0, 0.2, shape).astype(F)
    c = quantize_linear(weights, None, axis, 0.1, scheme)
    quant = Quantization(c.scales, (0,) * len(c.scales), axis if len(c.scales) > 1 else None)
    assert unfit(constant("w", c.weights, quant, c.form)) is None
    assert len(c.scales) == (1 if scheme.per_tensor else shape[axis])
    again = quantize_linear(weights, None, axis, 0.1, scheme)
    assert np.array_equal(again.weights, c.weights)


@pytest.mark.parametrize("scheme", ALL, ids=label)
@settings(deadline=None, derandomize=True, max_examples=30)
@given(
    nps.arrays(F, (2, 3), elements=st.floats(-1e9, 1e9, width=32)),
    nps.arrays(F, (2,), elements=st.floats(-1e6, 1e6, width=32)),
    st.floats(2.0**-40, 1e6),
)
def test_products_and_bias_always_fit_int32(scheme: Scheme, weights: Any, bias: Any, scale: float) -> None:
    c = quantize_linear(weights, bias, 0, scale, scheme)
    assert c.bias is not None
    assert all(s > 0 and np.isfinite(s) for s in c.scales)
    form = c.form
    sizes = form.magnitudes() if isinstance(form, Planes) else np.abs(c.weights.astype(np.int64))
    assert np.array_equal(sizes.sum(axis=1), c.sums)
    assert (np.abs(c.bias.astype(np.int64)) + 256 * c.sums).max() <= INT32_MAX


@pytest.mark.parametrize("scheme", ALL, ids=label)
def test_an_output_of_zeros_stays_zero(scheme: Scheme) -> None:
    weights = np.random.default_rng(2).normal(0, 1, (4, 40)).astype(F)
    weights[2] = 0.0
    found = real(scheme, weights)
    # The signs of bit planes need a coefficient of zero for that.
    assert not found[2].any()
    assert found[[0, 1, 3]].any(axis=1).all()


def test_more_bits_bring_weights_nearer() -> None:
    weights = np.random.default_rng(3).normal(0, 1, (8, 200)).astype(F)

    def error(scheme: Scheme) -> float:
        return float(((real(scheme, weights) - weights) ** 2).mean())

    for family in ([Linear(b) for b in range(2, 9)], [KMeans(b) for b in range(1, 8)]):
        errors = [error(s) for s in family]
        assert errors == sorted(errors, reverse=True)
    # Levels where the weights lie beat equal steps, and one base more beats one less.
    assert error(KMeans(4)) < error(Linear(4)) < error(Linear(4, fitting="max"))
    assert error(AbcNet(4)) < error(AbcNet(3)) < error(AbcNet(2)) < error(AbcNet(1))
    # One base differs from binary weights by the mean alone.
    assert error(AbcNet(1)) == pytest.approx(error(Binary()), rel=0.05)
    assert error(Ternary()) < error(Binary())


def test_binary_weights_are_the_sign_times_the_mean_magnitude() -> None:
    weights = np.array([[0.5, -1.5, 1.0], [-0.1, 0.2, 0.3]], F)
    assert np.allclose(real(Binary(), weights), [[1.0, -1.0, 1.0], [-0.2, 0.2, 0.2]])


def test_ternary_weights_below_seven_tenths_of_the_mean_are_zero() -> None:
    weights = np.array([[1.0, -0.6, 0.1, -2.3]], F)  # mean 1.0
    assert np.allclose(real(Ternary(), weights), [[1.65, 0.0, 0.0, -1.65]])


def test_per_tensor_weights_share_the_scale_of_the_largest() -> None:
    weights = np.array([[0.7, -0.1], [0.2, 0.3]], F)
    c = quantize_linear(weights, None, 0, 1.0, Linear(4, per_tensor=True, fitting="max"))
    assert c.scales == (pytest.approx(0.1),)
    assert c.weights.tolist() == [[7, -1], [2, 3]]
    assert c.form == Packed(4)


def test_weights_are_folded_output_by_output() -> None:
    weights = np.arange(24.0).reshape(1, 3, 2, 4)
    assert folded(weights, 3)[1].tolist() == weights[..., 1].ravel().tolist()


@pytest.mark.parametrize(
    ("text", "scheme"),
    [
        ("linear:4", Linear(4)),
        ("codebook:3", KMeans(3)),
        ("codebook", KMeans(4)),
        ("binary", Binary()),
        ("ternary", Ternary()),
        ("abc:2", AbcNet(2)),
        ("abc", AbcNet(3)),
    ],
)
def test_a_scheme_by_its_name(text: str, scheme: Scheme) -> None:
    assert parse_scheme(text)[0] == scheme


@pytest.mark.parametrize(
    "text",
    [
        "",
        "kmeans",
        "linear:1",
        "linear:9",
        "codebook:8",
        "codebook:",
        "binary:1",
        "abc:0",
        "abc:-1",
        "abc:1_0",
    ],
)
def test_a_scheme_that_does_not_exist_is_refused_with_those_that_do(text: str) -> None:
    with pytest.raises(DeployError) as error:
        parse_scheme(text)
    assert "codebook:1..7" in error.value.hint
