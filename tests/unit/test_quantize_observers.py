"""Calibration against examples computed by hand, in streams, and at the ends of what data can be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinydeploy.errors import DeployError
from tinydeploy.ir.types import DType
from tinydeploy.ops.quantize import dequantize_array, quantize_array
from tinydeploy.quantize.histogram import BINS, Histogram
from tinydeploy.quantize.observers import (
    CALIBRATORS,
    Calibrator,
    Entropy,
    MeanSquaredError,
    MinMax,
    Percentile,
    make_calibrator,
)
from tinydeploy.quantize.scales import Range, activation_quantization

FINITE = st.floats(-1e6, 1e6, width=32)


def observed(calibrator: Calibrator, *batches: object) -> Range:
    for batch in batches:
        calibrator.observe(np.asarray(batch, np.float32))
    return calibrator.range()


def heavy_tail(samples: int = 100_000) -> np.ndarray:
    """A normal distribution with three far outliers."""
    x = np.random.default_rng(0).normal(0, 1, samples).astype(np.float32)
    x[:3] = (60.0, -55.0, 58.0)
    return x


def test_minmax_is_the_least_and_the_greatest_over_all_batches() -> None:
    assert observed(MinMax(), [1.0, -2.0], [[0.5], [4.0]], [3.0]) == Range(-2.0, 4.0)


def test_percentile_of_a_ramp_leaves_out_its_share_at_each_end() -> None:
    # -1000 .. 1000 evenly: 1 % at each end are 20 of 2000.
    ramp = np.linspace(-1000, 1000, 200_001)
    r = observed(Percentile(99.0), ramp)
    assert r.low == pytest.approx(-980, abs=0.5)
    assert r.high == pytest.approx(980, abs=0.5)


def test_percentile_100_is_minmax() -> None:
    x = heavy_tail()
    assert observed(Percentile(100.0), x) == observed(MinMax(), x)


def test_percentile_leaves_out_one_outlier_in_ten_thousand() -> None:
    x = np.ones(20_001)
    x[0] = 1000.0
    # The outlier and the ones are 8192 bins apart, so the answer is one bin wide.
    assert observed(Percentile(), x).high == pytest.approx(1.0, abs=0.25)


@pytest.mark.parametrize("percent", [50.0, 100.1, -1.0])
def test_a_percentile_that_makes_no_sense_is_refused(percent: float) -> None:
    with pytest.raises(ValueError, match="percentile"):
        Percentile(percent)


def test_mse_keeps_the_whole_of_a_uniform_distribution() -> None:
    r = observed(MeanSquaredError(), np.linspace(-1, 1, 10_001))
    assert r.low < -0.98
    assert r.high > 0.98


def test_mse_gives_up_outliers_whose_cost_is_less_than_that_of_the_step() -> None:
    # Per million numbers within 1, an outlier at 2 costs at most 1; the step 3/255 against 2/255 costs
    # 1e6 * (9 - 4) / 255^2 / 12 = 6.4.
    x = np.concatenate([np.linspace(-1, 1, 1_000_000), [2.0]])
    r = observed(MeanSquaredError(), x)
    assert r.low == pytest.approx(-1.0, abs=0.03)
    assert r.high == pytest.approx(1.0, abs=0.06)


def test_mse_finds_the_best_pair_of_ends() -> None:
    x = np.concatenate([heavy_tail(20_000), np.full(500, 4.0)]).astype(np.float64)

    def error(span: Range) -> float:
        quant = activation_quantization(span)
        return float(np.sum((dequantize_array(quantize_array(x, quant, DType.INT8), quant) - x) ** 2))

    ends = np.linspace(0.05, 1.0, 20)
    best = min(error(Range(-55.0 * a, 60.0 * b)) for a in ends for b in ends)
    assert error(observed(MeanSquaredError(), x)) <= 1.02 * best


def test_entropy_cuts_outliers_and_keeps_the_body() -> None:
    r = observed(Entropy(), heavy_tail())
    assert 3.0 < r.high < 30.0
    assert -30.0 < r.low < -3.0


def test_entropy_keeps_a_distribution_that_the_levels_hold_exactly() -> None:
    # 128 equal steps of 16 bins: Q equals P at the full range only.
    assert observed(Entropy(), np.arange(-127, 128)) == Range(-127.0, 127.0)


def test_entropy_does_not_cut_a_lone_value() -> None:
    assert observed(Entropy(), [3.0, 3.0, 0.0, 0.0, 0.0]) == Range(0.0, 3.0)


@pytest.mark.parametrize("name", CALIBRATORS)
@pytest.mark.parametrize("value", [0.0, 3.0, -3.0, 1e-30, -1e15])
def test_a_constant_keeps_its_own_value_and_zero(name: str, value: float) -> None:
    r = observed(make_calibrator(name), np.full((4, 3), value))
    kept = r.high if value > 0 else r.low
    assert kept == pytest.approx(value, rel=0.02)
    assert r.low <= 0.0 <= r.high


@pytest.mark.parametrize("name", CALIBRATORS)
def test_numbers_of_one_sign_get_a_range_that_starts_at_zero(name: str) -> None:
    x = np.random.default_rng(1).uniform(5, 6, 5000)
    assert observed(make_calibrator(name), x).low == 0.0
    assert observed(make_calibrator(name), -x).high == 0.0


@pytest.mark.parametrize("name", CALIBRATORS)
@given(st.lists(st.lists(FINITE, max_size=8), max_size=4))
def test_a_range_contains_zero_and_nothing_that_was_not_seen(name: str, batches: list[list[float]]) -> None:
    r = observed(make_calibrator(name), *batches)
    seen = [0.0, *(x for batch in batches for x in batch)]
    assert min(seen) <= r.low <= 0.0 <= r.high <= max(seen)


@pytest.mark.parametrize("name", CALIBRATORS)
def test_batches_make_no_difference(name: str) -> None:
    x = heavy_tail(5000)
    whole = observed(make_calibrator(name), x)
    assert observed(make_calibrator(name), *np.array_split(x, 37)) == whole
    assert observed(make_calibrator(name), *np.array_split(x[::-1], 5)) == whole


def test_an_unknown_method_is_refused_with_those_that_exist() -> None:
    with pytest.raises(DeployError, match="guess") as caught:
        make_calibrator("guess")
    assert "minmax" in caught.value.hint


def test_a_histogram_grows_without_losing_or_moving_a_count() -> None:
    h = Histogram()
    for batch in ([0.0, 0.0], [1e-30], [0.25, -0.5], [3.0], [1000.0, -7.0]):
        h.add(np.array(batch))
    assert h.counts.sum() == 8
    assert BINS // 2 < len(h.counts) <= BINS
    assert (h.low, h.high) == (-7.0, 1000.0)
    # The width is 1/8: 0.25 and -0.5 are edges, and zero begins a bin.
    assert h.width == 0.125
    expected = {-7.0: 1, -0.5: 1, 0.0: 3, 0.25: 1, 3.0: 1, 1000.0: 1}
    assert {float(h.edges[i]): int(h.counts[i]) for i in np.flatnonzero(h.counts)} == expected


def test_magnitudes_fold_the_negative_side_onto_the_positive() -> None:
    h = Histogram()
    h.add(np.array([-1.0, -0.6, 0.6, 0.9, 1.0]))
    counts = h.magnitudes()
    seen = {i * h.width: int(counts[i]) for i in np.flatnonzero(counts)}
    assert sum(seen.values()) == 5
    assert all(abs(k - 0.6) < h.width or abs(k - 0.9) < h.width or abs(k - 1.0) <= h.width for k in seen)
