"""Requantization by thresholds: for every accumulator what the contract's rule gives."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from tinydeploy.ops.linear import LinearParameters
from tinydeploy.ops.requantize import Requantization
from tinydeploy.plan.levels import ANY, PLAIN, TIES, levels

Int64Array = npt.NDArray[np.int64]


def layer(
    ratio: float, zero_point: int, low: int = -128, high: int = 127, *, channels: int = 2, depth: int = 16
) -> tuple[Int64Array, LinearParameters]:
    """Weights, and parameters with ratios next to each other, for an input with zero point -5."""
    rng = np.random.default_rng(abs(hash((ratio, zero_point, low, high))) % 2**32)
    weights = rng.integers(-127, 128, (channels, depth))
    bias = rng.integers(-3000, 3000, channels).astype(np.int32)
    folded = (bias + 5 * weights.sum(axis=1)).astype(np.int32)
    pairs = [np.frexp(ratio * (1 + 0.01 * c)) for c in range(channels)]
    mantissas = tuple(round(float(m) * 2**31) for m, _ in pairs)
    exponents = tuple(int(e) for _, e in pairs)
    bound = int(np.abs(bias).max() + np.abs(weights).sum(axis=1).max() * 132)
    r = Requantization(mantissas, exponents, zero_point, low, high, bound)
    return weights.astype(np.int64), LinearParameters(bias, folded, r)


def computed(words: Int64Array, fraction: int, way: int, raw: Int64Array) -> Int64Array:
    """td_level for raw sums [sample, channel], step by step as the kernel does it, in 32 bits."""
    u = np.clip(raw + words[:, 0], 0, words[:, 1]).astype(np.uint64)
    total = u * (words[:, 2] & 0xFFFFFFFF).astype(np.uint64)
    low = u * (words[:, 3] & 0xFFFFFFFF).astype(np.uint64)
    assert low.max() < 2**32, "the product that is shifted must not wrap"
    total = total + (low >> np.uint64(fraction)) + (words[:, 4] & 0xFFFFFFFF).astype(np.uint64)
    if way == TIES:
        step = (words[:, 6] & 0xFFFFFFFF).astype(np.uint64)
        total = total + np.where(u.astype(np.int64) < words[:, 5], step, np.uint64(0))
    return ((total & np.uint64(0xFFFFFFFF)) >> np.uint64(24)).astype(np.uint8).view(np.int8).astype(np.int64)


def every_sum(weights: Int64Array) -> Int64Array:
    """All raw sums that any int8 inputs give, and a few that none does, for each channel."""
    most = int(np.abs(weights).sum(axis=1).max()) * 128
    return np.repeat(np.arange(-most, most + 1)[:, None], len(weights), axis=1)


CASES = [
    (0.004, -128, -128, 127),
    (0.004, -5, -128, 127),
    (0.0007, 3, -128, 127),
    (0.02, 0, -20, 63),
    (0.3, 127, -128, 127),
    (0.5, -128, -128, 127),
    (2.0**-8, 10, -128, 127),
    (2.0**-9, -128, -128, -100),
]


@pytest.mark.parametrize(("ratio", "zero_point", "low", "high"), CASES)
def test_every_sum_gives_what_the_rule_gives(ratio: float, zero_point: int, low: int, high: int) -> None:
    weights, p = layer(ratio, zero_point, low, high)
    found = levels(weights, p, -5)
    assert found.way in (PLAIN, TIES)
    raw = every_sum(weights)
    magnitude = np.abs(weights).sum(axis=1) * 132
    reachable = np.abs(raw + p.folded_bias - p.bias) <= magnitude
    wanted = p.requantization.apply_wide(raw + p.folded_bias)
    got = computed(found.words, found.fraction, found.way, raw)
    assert np.array_equal(got[reachable], wanted[reachable])


def test_outputs_on_both_sides_of_the_zero_point_need_the_step_for_ties() -> None:
    assert levels(*layer(0.004, -128), -5).way == PLAIN
    assert levels(*layer(0.004, -5), -5).way == TIES


def test_a_channel_that_is_constant_keeps_its_value() -> None:
    weights, p = layer(0.004, -5)
    weights[1] = 0
    folded = p.folded_bias.copy()
    folded[1] = p.bias[1]
    p = LinearParameters(p.bias, folded, p.requantization)
    found = levels(weights, p, -5)
    raw = np.zeros((1, 2), np.int64)
    got = computed(found.words, found.fraction, found.way, raw)
    assert got[0, 1] == p.requantization.apply_wide(raw + folded)[0, 1]


@pytest.mark.parametrize(("ratio", "depth"), [(2.0**-15, 4000), (3.0, 16)])
def test_a_ratio_without_such_factors_keeps_the_rule_itself(ratio: float, depth: int) -> None:
    """32 bits are too few for the first; the second leaps over levels at both clamps."""
    weights, p = layer(ratio, 0, depth=depth)
    found = levels(weights, p, -5)
    assert found.way == ANY
    assert found.words.shape == (2, 3)
    assert np.array_equal(found.words[:, 0], p.folded_bias)
