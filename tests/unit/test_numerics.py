"""The requantization rule against exact fractions, at the edges of int32; the C kernels against the rule."""

from __future__ import annotations

import math
import subprocess
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from native import needs_compiler, toolchain

from tinydeploy.backends.c.project import kernel_text
from tinydeploy.numerics import (
    INT32_MAX,
    INT32_MIN,
    Multiplier,
    fixed_exp_negative,
    fixed_logistic,
    fixed_multiply,
    fixed_reciprocal_one_plus,
    fixed_rescale,
    left_shift_fits,
    quantize_ratio,
    requantize,
    rounding_high_multiply,
    rounding_shift_right,
)
from tinydeploy.ops.activation import Softmax

ACCUMULATORS = st.integers(INT32_MIN, INT32_MAX)
MANTISSAS = st.one_of(st.just(0), st.integers(1 << 30, INT32_MAX))
EDGES = (
    INT32_MIN,
    INT32_MIN + 1,
    -(1 << 30),
    -2,
    -1,
    0,
    1,
    2,
    (1 << 30) - 1,
    1 << 30,
    INT32_MAX - 1,
    INT32_MAX,
)


def half_up(x: Fraction) -> int:
    return math.floor(x + Fraction(1, 2))


def half_away(x: Fraction) -> int:
    return half_up(x) if x >= 0 else -half_up(-x)


def exact(acc: int, mantissa: int, exponent: int) -> int:
    """The definition, in fractions: a rounding multiplication, then a rounding division."""
    high = half_up(Fraction(acc * 2 ** max(exponent, 0) * mantissa, 2**31))
    return half_away(Fraction(high, 2 ** max(-exponent, 0)))


def of_the_design(acc: int, mantissa: int, exponent: int) -> int:
    """The same in the words of the design: shifts of a 64-bit product."""
    v = (2 * (acc << max(exponent, 0)) * mantissa + 2**31) >> 32
    s = max(-exponent, 0)
    return (v + (v >> 31) + (1 << (s - 1))) >> s if s > 0 else v


def rule(acc: int, mantissa: int, exponent: int) -> int:
    return int(requantize(np.array([acc], np.int64), mantissa, exponent)[0])


@given(ACCUMULATORS, MANTISSAS, st.integers(-31, 0))
def test_right_shifts(acc: int, mantissa: int, exponent: int) -> None:
    assert rule(acc, mantissa, exponent) == exact(acc, mantissa, exponent)
    assert rule(acc, mantissa, exponent) == of_the_design(acc, mantissa, exponent)


@given(ACCUMULATORS, MANTISSAS, st.integers(1, 30))
def test_left_shifts(acc: int, mantissa: int, exponent: int) -> None:
    acc >>= exponent
    assert left_shift_fits(acc if acc >= 0 else -acc - 1, exponent)
    assert rule(acc, mantissa, exponent) == exact(acc, mantissa, exponent)
    assert rule(acc, mantissa, exponent) == of_the_design(acc, mantissa, exponent)


@pytest.mark.parametrize("exponent", range(-31, 1))
def test_edges_and_ties(exponent: int) -> None:
    shift = -exponent
    ties = [k * (1 << shift) + (1 << shift >> 1) + d for k in (-3, -2, -1, 0, 1, 2) for d in (-1, 0, 1)]
    for acc in (*EDGES, *(t for t in ties if INT32_MIN <= t <= INT32_MAX)):
        for mantissa in (0, 1 << 30, (1 << 30) + 1, 3 << 29, INT32_MAX - 1, INT32_MAX):
            assert rule(acc, mantissa, exponent) == exact(acc, mantissa, exponent)
            assert rule(acc, mantissa, exponent) == of_the_design(acc, mantissa, exponent)


@pytest.mark.parametrize(
    ("v", "shift", "expected"),
    [
        (1, 1, 1),
        (-1, 1, -1),
        (3, 1, 2),
        (-3, 1, -2),
        (6, 2, 2),
        (-6, 2, -2),
        (5, 2, 1),
        (-5, 2, -1),
        (7, 0, 7),
    ],
)
def test_ties_go_away_from_zero(v: int, shift: int, expected: int) -> None:
    assert int(rounding_shift_right(np.array(v, np.int64), shift)) == expected


@pytest.mark.parametrize(("a", "expected"), [(1, 1), (-1, 0), (3, 2), (-3, -1)])
def test_ties_of_the_multiplication_go_up(a: int, expected: int) -> None:
    assert int(rounding_high_multiply(np.array(a, np.int64), 1 << 30)) == expected


def test_one_multiplier_a_channel() -> None:
    acc = np.array([[1000, -1000], [77, 77]], np.int32)
    mantissas, exponents = [1 << 30, 3 << 29], [-2, 1]
    expected = [[exact(int(a), mantissas[c], exponents[c]) for c, a in enumerate(row)] for row in acc]
    assert requantize(acc, np.array(mantissas), np.array(exponents)).tolist() == expected


@given(st.floats(2.0**-31, 2.0**30, exclude_max=True, allow_subnormal=False))
@example(1.0)
@example(math.nextafter(1.0, 0.0))
@example(2.0**-31)
@example(math.nextafter(0.5, 1.0))
def test_a_ratio_is_kept_to_31_bits(ratio: float) -> None:
    if ratio >= 2.0**30 * (1 - 2.0**-32):
        return
    m = quantize_ratio(ratio)
    assert 1 << 30 <= m.mantissa <= INT32_MAX
    assert -31 <= m.exponent <= 30
    error = abs(Fraction(m.mantissa) * Fraction(2) ** (m.exponent - 31) - Fraction(ratio))
    assert error <= Fraction(2) ** (m.exponent - 32)


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [
        (0.0, Multiplier(0, 0)),
        (0.5, Multiplier(1 << 30, 0)),
        (1.0, Multiplier(1 << 30, 1)),
        (0.75, Multiplier(3 << 29, 0)),
        # The mantissa rounds up to 2**31 and is halved.
        (math.nextafter(1.0, 0.0), Multiplier(1 << 30, 1)),
        (math.nextafter(0.25, 0.0), Multiplier(1 << 30, -1)),
        # A half of the last bit goes away from zero.
        (0.5 + 2.0**-32, Multiplier((1 << 30) + 1, 0)),
        (2.0**-32, Multiplier(1 << 30, -31)),
        # Rounding up lifts the exponent into the range again.
        (math.nextafter(2.0**-32, 0.0), Multiplier(1 << 30, -31)),
        (2.0**-32 * 0.99, Multiplier(0, 0)),
        (2.0**-33, Multiplier(0, 0)),
        (5e-324, Multiplier(0, 0)),
        (2.0**30 * 0.75, Multiplier(3 << 29, 30)),
    ],
)
def test_edges_of_a_ratio(ratio: float, expected: Multiplier) -> None:
    assert quantize_ratio(ratio) == expected
    assert expected.left_shift - expected.right_shift == expected.exponent


@pytest.mark.parametrize(
    "ratio", [math.nan, math.inf, -math.inf, -1.0, -5e-324, 2.0**30, 1e300, math.nextafter(2.0**30, 0.0)]
)
def test_a_ratio_that_is_none_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="ratio"):
        quantize_ratio(ratio)


@given(st.integers(0, INT32_MAX), st.integers(-31, 30))
def test_a_left_shift_fits_where_the_number_does(bound: int, exponent: int) -> None:
    assert left_shift_fits(bound, exponent) == (bound * 2 ** max(exponent, 0) <= INT32_MAX)


@given(ACCUMULATORS, ACCUMULATORS)
@example(INT32_MIN, INT32_MIN)
@example(INT32_MIN, INT32_MAX)
@example(-1, 1 << 30)
@example(1, 1 << 30)
def test_fixed_multiply_is_exact_and_saturates(a: int, b: int) -> None:
    assert fixed_multiply(a, b) == min(half_up(Fraction(a * b, 2**31)), INT32_MAX)


@given(ACCUMULATORS, st.integers(-31, 31))
def test_fixed_rescale_saturates_and_rounds_away(v: int, power: int) -> None:
    scaled = half_away(Fraction(v) * Fraction(2) ** power)
    assert fixed_rescale(v, power) == min(max(scaled, INT32_MIN), INT32_MAX)


@pytest.mark.parametrize("bits", [4, 5])
def test_fixed_exponential(bits: int) -> None:
    for raw in (*range(-2000, 0), *(-(1 << k) for k in range(31)), INT32_MIN, -123456789, -(1 << 28) + 1):
        real = math.exp(raw / 2.0 ** (31 - bits))
        # A series of degree 4 over [-1/4, 0] is off by up to (1/8)**5 / 5!, that is 2**-21.9.
        assert abs(fixed_exp_negative(raw, bits) / 2.0**31 - real) < 2.0**-21.5
    assert fixed_exp_negative(0, bits) == INT32_MAX


def test_fixed_reciprocal() -> None:
    for raw in (0, 1, 2, 1 << 30, INT32_MAX, *range(0, INT32_MAX, 1_234_567)):
        real = 1.0 / (1.0 + raw / 2.0**31)
        assert abs(fixed_reciprocal_one_plus(raw) / 2.0**31 - real) < 2.0**-27


@given(ACCUMULATORS)
@example(0)
@example(1)
@example(-1)
@example(INT32_MIN)
@example(INT32_MAX)
def test_fixed_logistic(raw: int) -> None:
    real = 1.0 / (1.0 + math.exp(-raw / 2.0**27))
    assert abs(fixed_logistic(raw, 4) / 2.0**31 - real) < 2.0**-21.5


Rows = Iterable[tuple[int, ...]]


def run_kernel(folder: Path, header: str, expression: str, rows: Rows) -> list[int]:
    """What a C expression of `v[0]`, `v[1]`, ... gives for each row, under sanitizers."""
    for name in {"td_kernels.h", header}:
        (folder / name).write_text(kernel_text(name))
    data = np.array(list(rows), np.int32)
    main = f"""#include <stdio.h>
    #include "{header}"
    int main(void) {{
        int32_t v[{data.shape[1]}];
        while (fread(v, sizeof v, 1, stdin) == 1) {{
            const int32_t r = {expression};
            fwrite(&r, sizeof r, 1, stdout);
        }}
        return 0;
    }}"""
    (folder / "main.c").write_text(main)
    sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-Wno-unused-function"]
    command = [*toolchain().command, "-std=c99", *sanitize, "main.c", "-o", "main"]
    subprocess.run(command, cwd=folder, check=True)
    done = subprocess.run([folder / "main"], input=data.tobytes(), capture_output=True, check=True)
    return np.frombuffer(done.stdout, np.int32).tolist()


def numbers(seed: int, count: int, low: int = INT32_MIN, high: int = INT32_MAX) -> list[int]:
    """Of every magnitude, both signs, within the limits."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(INT32_MIN, INT32_MAX, count, endpoint=True) >> rng.integers(0, 32, count)
    return [int(v) for v in np.clip(drawn, low, high)]


def triples(seed: int, *, left: bool = True) -> list[tuple[int, int, int]]:
    rows = []
    rng = np.random.default_rng(seed)
    for acc in (*numbers(seed, 3000), *EDGES):
        exponent = int(rng.integers(-31, 31 if left else 0))
        mantissa = 0 if rng.random() < 0.02 else int(rng.integers(1 << 30, 1 << 31))
        rows.append((acc >> max(exponent, 0), mantissa, exponent))
    # Every tie of every shift: a mantissa of a half halves the accumulator exactly.
    for shift in range(1, 31):
        rows += [(2 * (k * (1 << shift) + (1 << shift >> 1)), 1 << 30, -shift) for k in (-2, -1, 0)]
    return [r for r in rows if INT32_MIN <= r[0] <= INT32_MAX]


@needs_compiler
def test_c_requantizes_by_the_rule(tmp_path: Path) -> None:
    rows = triples(1)
    got = run_kernel(tmp_path, "td_kernels.h", "td_scale(v[0], v[1], v[2])", rows)
    assert got == [exact(*row) for row in rows]


@needs_compiler
def test_the_short_rounding_equals_the_general_one_where_it_is_allowed(tmp_path: Path) -> None:
    rows = []
    for acc, mantissa, exponent in triples(2, left=False):
        # What `Requantization.right_shifts_only` proves of every accumulator.
        limit = INT32_MAX - (1 << (-exponent - 1))
        rows.append((min(max(acc, -limit), limit), mantissa, exponent))
        rows += [(sign * limit, INT32_MAX, exponent) for sign in (-1, 1)]
    out = "&(td_output){ 3, INT32_MIN, INT32_MAX, %d }"
    expected = [min(exact(*row) + 3, INT32_MAX) for row in rows]
    for right_only in (0, 1):
        call = f"td_requantize(v[0], v[1], v[2], {out % right_only})"
        assert run_kernel(tmp_path, "td_kernels.h", call, rows) == expected


@needs_compiler
def test_c_clamps_and_moves(tmp_path: Path) -> None:
    rows = [(acc, 1 << 30, 1) for acc in range(-400, 400)]
    out = "&(td_output){ -7, -100, 90, 0 }"
    got = run_kernel(tmp_path, "td_kernels.h", f"td_requantize(v[0], v[1], v[2], {out})", rows)
    assert got == [min(max(acc - 7, -100), 90) for acc, _, _ in rows]


SOFTMAX_PARTS: dict[str, tuple[str, Callable[..., int], list[tuple[int, ...]]]] = {
    "multiply": (
        "td_fixed_multiply(v[0], v[1])",
        fixed_multiply,
        [(a, b) for a in (*numbers(3, 500), *EDGES) for b in (1, -1, INT32_MAX, -1010580540, 1 << 30)],
    ),
    "shift": (
        "td_saturating_shift(v[0], v[1])",
        fixed_rescale,
        [(a, n) for a in (*numbers(4, 500), *EDGES) for n in (0, 1, 2, 5)],
    ),
    "round shift": (
        "td_round_shift(v[0], v[1])",
        lambda v, n: fixed_rescale(v, -n),
        [(a, n) for a in (*numbers(5, 300), *EDGES) for n in (1, 2, 12, 23, 30, 31)],
    ),
    "reciprocal": (
        "td_reciprocal_one_plus(v[0])",
        fixed_reciprocal_one_plus,
        [(v,) for v in (0, 1, INT32_MAX, *numbers(6, 3000, low=0))],
    ),
    "leading zeros": (
        "td_leading_zeros((uint32_t)v[0])",
        lambda v: 32 - v.bit_length(),
        [(v,) for v in (1, INT32_MAX, *numbers(7, 300, low=1))],
    ),
}


@needs_compiler
@pytest.mark.parametrize("part", SOFTMAX_PARTS)
def test_the_parts_of_softmax_in_c(part: str, tmp_path: Path) -> None:
    expression, function, rows = SOFTMAX_PARTS[part]
    assert run_kernel(tmp_path, "td_kernels_softmax.h", expression, rows) == [function(*r) for r in rows]


def test_a_sum_of_the_most_classes_fits_its_accumulator() -> None:
    largest = fixed_rescale(INT32_MAX, -Softmax.ACCUMULATOR_INTEGER_BITS)
    assert 4095 * largest <= INT32_MAX
