"""Noise and divergence: formulas against simulation, and against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sweeps import thinned

from tinydeploy.analysis.divergence import kl_divergence, kl_of_counts
from tinydeploy.analysis.grids import Grid
from tinydeploy.analysis.noise import (
    dot_product_bits,
    dot_product_sqnr_db,
    operand_sqnr_db,
    tensor_sqnr_db,
    zeta_db,
)
from tinydeploy.ir.forms import Packed, Signs
from tinydeploy.ir.types import Array, DType, Quantization, Value
from tinydeploy.quantize.error import decibels
from tinydeploy.quantize.scales import Activations, Range, activation_quantization

LENGTHS = (16, 64, 256, 1024, 4096)
DISTRIBUTIONS = ("uniform", "gaussian")


def draw(rng: np.random.Generator, kind: str, shape: tuple[int, int]) -> tuple[Array, float]:
    """Operands and their peak; a Gaussian is cut off at four sigma."""
    if kind == "uniform":
        return rng.uniform(-1, 1, shape), 1.0
    return np.clip(rng.normal(0, 1, shape), -4, 4), 4.0


def rounded(x: Array, step: float) -> Array:
    return np.rint(x / step) * step


def rms(x: Array) -> float:
    return float(np.sqrt(np.mean(x**2)))


@pytest.mark.parametrize("length", thinned(LENGTHS, 2))
@pytest.mark.parametrize("kind", DISTRIBUTIONS)
def test_the_sqnr_formula_is_within_half_a_decibel_of_simulation(kind: str, length: int) -> None:
    rng = np.random.default_rng(length)
    # As many bits as make the step half of the rms of Gaussian sums.
    bits, shape = 6 + length.bit_length() // 2, (max(1 << 23 >> length.bit_length(), 4000), length)
    (x, x_peak), (w, w_peak) = draw(rng, kind, shape), draw(rng, kind, shape)
    y = np.sum(x * w, axis=1)
    step = 2 * length * x_peak * w_peak / 2**bits
    simulated = decibels(float(np.sum(y**2)), float(np.sum((rounded(y, step) - y) ** 2)))
    zetas = zeta_db(x_peak, rms(x)), zeta_db(w_peak, rms(w))
    assert dot_product_sqnr_db(bits, *zetas, length) == pytest.approx(simulated, abs=0.5)
    # As it is printed, with 6 dB a bit and 4.8 dB.
    printed = 6 * bits + 4.8 - sum(zetas) - 10 * math.log10(length)
    assert printed == pytest.approx(simulated, abs=0.5)


@pytest.mark.parametrize("length", thinned(LENGTHS, 2, first=1))
@pytest.mark.parametrize("kind", DISTRIBUTIONS)
def test_quantized_operands_add_their_noise_to_signal_ratios(kind: str, length: int) -> None:
    rng = np.random.default_rng(length)
    shape = (max(1 << 22 >> length.bit_length(), 4000), length)
    (x, x_peak), (w, w_peak) = draw(rng, kind, shape), draw(rng, kind, shape)
    bits_x, bits_w = 6, 8
    noisy = np.sum(rounded(x, 2 * x_peak / 2**bits_x) * rounded(w, 2 * w_peak / 2**bits_w), axis=1)
    y = np.sum(x * w, axis=1)
    simulated = decibels(float(np.sum(y**2)), float(np.sum((noisy - y) ** 2)))
    predicted = operand_sqnr_db(
        tensor_sqnr_db(bits_x, zeta_db(x_peak, rms(x))), tensor_sqnr_db(bits_w, zeta_db(w_peak, rms(w)))
    )
    assert predicted == pytest.approx(simulated, abs=0.5)


def test_the_bits_of_an_output_are_the_least_that_reach_an_sqnr() -> None:
    bits = dot_product_bits(40.0, 4.8, 4.8, 256)
    assert dot_product_sqnr_db(bits, 4.8, 4.8, 256) >= 40.0
    assert dot_product_sqnr_db(bits - 1, 4.8, 4.8, 256) < 40.0


def test_zeta_of_known_signals() -> None:
    assert zeta_db(1.0, 1.0) == 0.0
    assert zeta_db(1.0, 1 / math.sqrt(3)) == pytest.approx(4.77, abs=0.01)
    assert zeta_db(0.0, 0.0) == math.inf


def test_kl_of_the_worked_example() -> None:
    p, q = np.array([0.2, 0.8]), np.array([0.6, 0.4])
    assert kl_divergence(p, q) == pytest.approx(0.3348, abs=5e-5)
    assert kl_divergence(q, p) == pytest.approx(0.3819, abs=5e-5)


def test_kl_is_infinite_where_q_lacks_what_p_has_and_finite_for_counts() -> None:
    p, q = np.array([1, 1]), np.array([2, 0])
    assert kl_divergence(p, q) == math.inf
    assert math.isfinite(kl_divergence(q, p))
    forward, reverse = kl_of_counts(p, q)
    assert 0 < forward < math.inf
    assert 0 < reverse < math.inf


counts = st.lists(st.integers(0, 10_000), min_size=4, max_size=4)


@given(counts, counts)
def test_no_divergence_is_negative_and_none_is_there_between_equals(a: list[int], b: list[int]) -> None:
    p, q = np.array(a), np.array(b)
    assert min(kl_of_counts(p, q)) >= 0.0
    assert kl_of_counts(p, p) == (0.0, 0.0)
    assert kl_of_counts(p, q) == pytest.approx(kl_of_counts(q, p)[::-1])


@given(st.floats(-1e3, 0.0), st.floats(0.001, 1e3), st.integers(2, 8), st.lists(st.floats(0, 1), min_size=1))
def test_a_grid_rounds_what_it_spans_by_a_step_at_most_and_holds_zero(
    low: float, high: float, bits: int, shares: list[float]
) -> None:
    quant = activation_quantization(Range(low, high), how=Activations(bits))
    grid = Grid.of(Value("x", DType.INT8, (1,), quant, form=Packed(bits) if bits < 8 else None))
    assert (grid.bits, grid.levels) == (bits, 2**bits)
    x = low + (high - low) * np.array(shares)
    # The zero point is an integer, so one end may lie half a step outside.
    assert np.abs(grid.real(grid.index(x)) - x).max() <= grid.scale * 1.001
    assert grid.real(grid.index(np.zeros(1)))[0] == 0.0


def test_signs_have_two_points_one_bit_each() -> None:
    grid = Grid.of(Value("x", DType.INT8, (1,), Quantization((0.5,), (0,)), form=Signs()))
    assert grid.bits == 1
    assert grid.real(np.array([0, 2])).tolist() == [-0.5, 0.5]
