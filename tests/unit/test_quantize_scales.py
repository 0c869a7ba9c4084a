"""Scales, zero points, weights and biases against examples computed by hand, and at the extremes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinydeploy.numerics import INT32_MAX, left_shift_fits, quantize_ratio
from tinydeploy.quantize.scales import (
    MIN_SCALE,
    Range,
    activation_quantization,
    least_output_scale,
)
from tinydeploy.quantize.weights import LinearConstants, quantize_linear

F = np.float32


def test_a_range_is_widened_to_zero() -> None:
    assert Range.of(2.0, 5.0) == Range(0.0, 5.0)
    assert Range.of(-5.0, -2.0) == Range(-5.0, 0.0)


@pytest.mark.parametrize(
    ("span", "scale", "zero_point"),
    [
        (Range(0.0, 255.0), 1.0, -128),
        (Range(-255.0, 0.0), 1.0, 127),
        (Range(-128.0, 127.0), 1.0, 0),
        (Range(-1.0, 1.0), float(F(2.0 / 255)), 0),
        (Range(-10.0, 245.0), 1.0, -118),
        (Range(0.0, 6.0), float(F(6.0 / 255)), -128),
    ],
)
def test_scale_and_zero_point(span: Range, scale: float, zero_point: int) -> None:
    quant = activation_quantization(span)
    assert (quant.scale, quant.zero_point) == (scale, zero_point)


def test_a_range_of_nothing_gets_a_harmless_scale() -> None:
    quant = activation_quantization(Range(0.0, 0.0))
    assert 0.001 < quant.scale < 1.0
    assert quant.zero_point == 0


def test_a_raised_scale_keeps_the_proportion_of_the_ends() -> None:
    quant = activation_quantization(Range(0.0, 1e-9), least_scale=0.5)
    assert (quant.scale, quant.zero_point) == (0.5, -128)


@settings(deadline=None, derandomize=True)
@given(st.floats(-1e18, 0), st.floats(0, 1e18), st.floats(0, 1e6))
def test_every_range_gives_a_float32_scale_and_an_int8_zero_point(
    low: float, high: float, least: float
) -> None:
    quant = activation_quantization(Range(low, high), least)
    assert quant.scale == float(F(quant.scale))
    assert quant.scale >= max(least, MIN_SCALE)
    assert -128 <= quant.zero_point <= 127
    if low < high and least == 0.0 and quant.scale > 2 * MIN_SCALE:
        # The zero point is nudged by up to half a step, which both ends give up or gain.
        step = quant.scale
        assert (-128 - quant.zero_point) * step == pytest.approx(low, abs=0.51 * step)
        assert (127 - quant.zero_point) * step == pytest.approx(high, abs=0.51 * step)


def test_weights_are_symmetric_per_channel() -> None:
    weights = np.array([[1.0, -2.0, 0.5], [0.1, 0.0, 0.127]], F)
    c = quantize_linear(weights, np.array([1.0, -1.0], F), 0, 0.5)
    assert c.scales == (float(F(2.0 / 127)), float(F(F(0.127) / 127)))
    assert c.weights.tolist() == [[64, -127, 32], [100, 0, 127]]
    assert c.bias is not None
    assert c.bias.tolist() == [127, -2000]


def test_depthwise_weights_have_their_channels_last() -> None:
    weights = np.array([[[[1.0, 10.0], [-0.5, 5.0]]]], F)
    c = quantize_linear(weights, None, 3, 1.0)
    assert c.weights.tolist() == [[[[127, 127], [-64, 64]]]]
    assert c.bias is None


def test_a_channel_of_zeros_takes_a_scale_of_its_layer() -> None:
    c = quantize_linear(np.array([[0.0, 0.0], [1.27, -1.0]], F), None, 0, 0.1)
    assert c.scales[0] == c.scales[1] > 0
    assert c.weights.tolist() == [[0, 0], [127, -100]]


def test_a_layer_of_zeros_has_positive_scales() -> None:
    c = quantize_linear(np.zeros((2, 4), F), np.zeros(2, F), 0, 0.1)
    assert min(c.scales) > 0
    assert not c.weights.any()


def test_a_channel_of_zeros_keeps_the_precision_of_its_bias() -> None:
    c = quantize_linear(np.zeros((1, 4), F), np.array([3.5], F), 0, 100.0)
    assert c.bias is not None
    assert c.bias[0] * c.scales[0] * 100.0 == pytest.approx(3.5, rel=1e-6)


@pytest.mark.parametrize(("bias", "input_scale"), [(1e9, 1e-3), (-1e9, 1e-3), (3e5, 1e-9)])
def test_a_bias_that_would_overflow_raises_the_scale_of_its_channel_alone(
    bias: float, input_scale: float
) -> None:
    weights = np.array([[0.127, -0.1], [0.127, 0.05]], F)
    plain = quantize_linear(weights, np.zeros(2, F), 0, input_scale)
    c = quantize_linear(weights, np.array([bias, 1e-4], F), 0, input_scale)
    assert c.scales[0] > plain.scales[0]
    assert c.scales[1] == plain.scales[1]
    assert c.bias is not None
    assert c.bias[0] * c.scales[0] * input_scale == pytest.approx(bias, rel=1e-6)
    assert_fits_int32(c)


def assert_fits_int32(c: LinearConstants) -> None:
    """The bias beside all products of raw inputs and the zero point."""
    assert c.bias is not None
    raw = np.abs(c.bias.astype(np.int64)) + 256 * np.abs(c.weights.astype(np.int64)).sum(axis=1)
    assert raw.max() <= INT32_MAX


@settings(deadline=None, derandomize=True)
@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=2),
    st.lists(st.floats(-1e9, 1e9, width=32), min_size=6, max_size=6),
    st.floats(MIN_SCALE, 1e6),
)
def test_linear_constants_always_fit(bias: list[float], weights: list[float], scale: float) -> None:
    c = quantize_linear(np.array(weights, F).reshape(2, 3), np.array(bias, F), 0, scale)
    assert c.bias is not None
    assert all(s > 0 and np.isfinite(s) and s == float(F(s)) for s in c.scales)
    assert c.weights.min() >= -127
    assert_fits_int32(c)


@settings(deadline=None, derandomize=True)
@given(st.floats(1e-12, 1e12), st.integers(1, INT32_MAX))
def test_the_least_output_scale_admits_the_left_shift(products: float, bound: int) -> None:
    ratio = products / least_output_scale(products, bound)
    assert left_shift_fits(bound, quantize_ratio(ratio).exponent)
