"""Optimal quantizers of known densities against their published figures, and calibration by them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from graphs import GraphBuilder, conv_2d, random_inputs

from tinydeploy.ir.types import Array
from tinydeploy.ops import Activation
from tinydeploy.quantize import QuantizeOptions, layer_errors, quantize
from tinydeploy.quantize.densities import (
    gaussian_clip,
    half_wave_distortion,
    half_wave_levels,
    half_wave_step,
    laplace_clip,
)
from tinydeploy.quantize.observers import Calibrator, MinMax
from tinydeploy.quantize.parametric import Aciq, HalfWaveGaussian
from tinydeploy.quantize.recipe_file import make_recipe
from tinydeploy.quantize.scales import Range


def observed(calibrator: Calibrator, x: Array) -> Range:
    for batch in np.array_split(x.astype(np.float32), 5):
        calibrator.observe(batch)
    return calibrator.range()


def simulated_error(x: Array, levels: Array) -> float:
    """Mean squared error of the nearest of a few levels."""
    return float(np.mean(np.min((x[:, None] - levels[None, :]) ** 2, axis=1)))


@pytest.mark.parametrize(("bits", "published"), [(2, 2.83), (3, 3.89), (4, 5.03)])
def test_laplace_clips_are_those_of_aciq(bits: int, published: float) -> None:
    assert laplace_clip(bits) == pytest.approx(published, abs=0.01)


@pytest.mark.parametrize(("bits", "published"), [(2, 1.71), (3, 2.15), (4, 2.55)])
def test_gaussian_clips_are_those_of_aciq(bits: int, published: float) -> None:
    assert gaussian_clip(bits) == pytest.approx(published, abs=0.01)


def test_the_two_bit_half_wave_step_is_that_of_hwgq() -> None:
    # Cai et al. 2017 print 0.538 with three digits.
    assert half_wave_step(2) == pytest.approx(0.538, abs=0.001)


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
@pytest.mark.parametrize("rounds_to_zero", [False, True])
def test_no_other_half_wave_step_is_better(bits: int, rounds_to_zero: bool) -> None:
    step = half_wave_step(bits, rounds_to_zero=rounds_to_zero)
    numbers = np.arange(0 if rounds_to_zero else 1, 2**bits)
    best = half_wave_distortion(numbers * step)
    for factor in (0.9, 0.99, 1.01, 1.1):
        assert half_wave_distortion(numbers * step * factor) > best


@pytest.mark.parametrize("bits", [1, 2, 3])
def test_the_distortion_is_that_of_a_simulation(bits: int) -> None:
    x = np.abs(np.random.default_rng(0).normal(0, 1, 200_000))
    levels = np.array(half_wave_levels(bits))
    # Half of a Gaussian is positive.
    assert half_wave_distortion(levels) == pytest.approx(simulated_error(x, levels) / 2, rel=0.02)


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_levels_meet_both_of_lloyds_conditions_and_beat_uniform_ones(bits: int) -> None:
    levels = np.array(half_wave_levels(bits))
    assert len(levels) == 2**bits - 1
    x = np.linspace(0, 12, 1_200_001)
    density = np.exp(-(x**2) / 2)
    nearest = np.searchsorted((levels[1:] + levels[:-1]) / 2, x)
    means = np.bincount(nearest, x * density) / np.bincount(nearest, density)
    assert means == pytest.approx(levels, abs=1e-5)
    uniform = np.arange(1, 2**bits) * half_wave_step(bits)
    assert half_wave_distortion(levels) <= half_wave_distortion(uniform) + 1e-9


def test_the_one_level_of_one_bit_is_the_mean_of_a_half_gaussian() -> None:
    assert half_wave_levels(1) == pytest.approx((math.sqrt(2 / math.pi),))


def gaussian(samples: int = 200_000) -> Array:
    return np.random.default_rng(1).normal(0.5, 2.0, samples)


@pytest.mark.parametrize("bits", [3, 4])
def test_aciq_finds_the_clip_of_a_gaussian_about_its_mean(bits: int) -> None:
    r = observed(Aciq(bits), gaussian())
    assert r.high == pytest.approx(0.5 + 2.0 * gaussian_clip(bits), rel=0.02)
    assert r.low == pytest.approx(0.5 - 2.0 * gaussian_clip(bits), rel=0.02)


@pytest.mark.parametrize("bits", [3, 4])
def test_aciq_tells_laplace_from_gauss(bits: int) -> None:
    x = np.random.default_rng(1).laplace(0.0, 3.0, 200_000)
    assert observed(Aciq(bits), x).high == pytest.approx(3.0 * laplace_clip(bits), rel=0.02)


def test_aciq_of_a_rectified_tensor_has_one_bit_more() -> None:
    x = np.maximum(np.random.default_rng(1).normal(0.0, 2.0, 200_000), 0.0)
    r = observed(Aciq(4), x)
    assert r.low == 0.0
    assert r.high == pytest.approx(2.0 * gaussian_clip(5), rel=0.02)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_hwgq_spans_its_levels_for_a_rectified_gaussian(bits: int) -> None:
    x = np.maximum(np.random.default_rng(2).normal(0.0, 3.0, 200_000), 0.0)
    r = observed(HalfWaveGaussian(bits), x)
    assert r.low == 0.0
    expected = 3.0 * (2**bits - 1) * half_wave_step(bits, rounds_to_zero=True)
    assert r.high == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("make", [Aciq, HalfWaveGaussian])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_few_bits_are_spent_better_than_by_minmax(make: type[Aciq], bits: int) -> None:
    x = np.maximum(np.random.default_rng(3).normal(0.0, 1.0, 50_000), 0.0)
    errors = []
    for calibrator in (make(bits), MinMax()):
        high = observed(calibrator, x).high
        errors.append(simulated_error(x, np.linspace(0.0, high, 2**bits)))
    assert errors[0] < 0.8 * errors[1]


@pytest.mark.parametrize("make", [Aciq, HalfWaveGaussian])
def test_nothing_is_wider_than_what_was_seen(make: type[Aciq]) -> None:
    assert observed(make(), np.full(100, 5.0)) == Range(0.0, 5.0)
    assert observed(make(), np.zeros(100)) == Range(0.0, 0.0)
    x = -np.abs(gaussian(1000)).astype(np.float32)
    r = observed(make(), x)
    assert r.high == 0.0
    assert r.low >= x.min()


@pytest.mark.parametrize("method", ["mse", "entropy", "aciq", "hwgq"])
def test_quantization_calibrates_for_the_bits_of_each_tensor(method: str) -> None:
    b = GraphBuilder(0, is_float=True)
    x = conv_2d(b, shape=(1, 12, 12, 3), outputs=16, activation=Activation.RELU)
    graph = b.graph(conv_2d(b, x=x, outputs=4))
    inputs = random_inputs(graph, 40)
    errors = []
    for calibration in (method, "minmax"):
        options = QuantizeOptions(calibration, recipe=make_recipe("8:3"))
        errors.append(layer_errors(graph, quantize(graph, inputs, options), inputs)[-1].sqnr_db)
    # Three bits over all that was seen are worse by far than three bits over what there is much of.
    assert errors[0] > errors[1] + 2.0
