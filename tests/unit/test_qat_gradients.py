"""The methods of quantization-aware training: each formula and gradient against numbers worked by hand."""

from __future__ import annotations

import math
from typing import Any, get_args

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from tinydeploy.ir.forms import Codebook, Planes  # noqa: E402
from tinydeploy.ops import Staircase  # noqa: E402
from tinydeploy.quantize.densities import half_wave_levels  # noqa: E402
from tinydeploy.quantize.methods.abc_net import AbcActivations, several_bases  # noqa: E402
from tinydeploy.quantize.methods.base import at_random, to_nearest  # noqa: E402
from tinydeploy.quantize.methods.hwgq import LloydActivations, half_wave  # noqa: E402
from tinydeploy.quantize.methods.lsq import LsqWeights, learned_step  # noqa: E402
from tinydeploy.quantize.methods.pact import PENALTY, PactActivations, clipped  # noqa: E402
from tinydeploy.quantize.methods.signs import ROOM, BinaryWeights, held  # noqa: E402
from tinydeploy.quantize.methods.straight import StraightThrough, straight_through  # noqa: E402
from tinydeploy.quantize.methods.ttq import ternary  # noqa: E402
from tinydeploy.quantize.qat_options import (  # noqa: E402
    SignGradient,
    bits_at,
)
from tinydeploy.quantize.scales import Activations, Range  # noqa: E402
from tinydeploy.quantize.schemes import Binary, Linear, MinMaxRange, TrainedTernary  # noqa: E402
from tinydeploy.quantize.staircases import nearest  # noqa: E402
from tinydeploy.quantize.weights import quantize_linear  # noqa: E402
from tinydeploy.trainable.surrogates import SURROGATES, sign  # noqa: E402


def tensor(*numbers: float) -> Any:
    return torch.tensor(numbers, requires_grad=True)


def test_lsq_step_learns_the_rounding_error_inside_and_the_limit_beyond() -> None:
    x, step = tensor(-9.0, -1.2, 0.7, 1.6, 9.0), tensor(0.5)
    y = learned_step(x, step, (-4, 3), 0.1, to_nearest)
    assert y.tolist() == [-2.0, -1.0, 0.5, 1.5, 1.5]
    y.backward(torch.tensor([1.0, 10.0, 100.0, 1000.0, 10000.0]))
    assert x.grad.tolist() == [0.0, 10.0, 100.0, 0.0, 0.0]
    # -Q_N; round(-2.4) + 2.4; round(1.4) - 1.4; Q_P; Q_P
    expected = -4 * 1 + 0.4 * 10 - 0.4 * 100 + 3 * 1000 + 3 * 10000
    assert step.grad.item() == pytest.approx(0.1 * expected, rel=1e-5)


@pytest.mark.parametrize(("per_tensor", "sharing"), [(False, 8), (True, 24)])
def test_lsq_gradient_is_scaled_by_the_numbers_that_share_a_step(per_tensor: bool, sharing: int) -> None:
    weights = torch.tensor(np.random.default_rng(0).normal(0, 1, (3, 8)), dtype=torch.float32)
    method = LsqWeights(Linear(3, per_tensor=per_tensor), weights, 0, to_nearest)
    gradient = torch.tensor(np.random.default_rng(1).normal(0, 1, (3, 8)), dtype=torch.float32)
    method(weights).backward(gradient)
    v = weights / method.step().detach().reshape(-1, 1)
    slope = torch.where(v.abs() < 3, to_nearest(v) - v, v.clamp(-3, 3))
    of_step = (gradient * slope).sum(dim=None if per_tensor else 1).reshape(-1) / math.sqrt(sharing * 3)
    # Gradient descent with a rate of 1 moves the step by the gradient of the paper.
    moved = method.step.start * method.step.parts.grad
    torch.testing.assert_close(moved, of_step, rtol=1e-4, atol=1e-6)


def test_pact_clip_learns_from_what_lies_beyond_it() -> None:
    x, alpha = tensor(-1.0, 0.0, 0.9, 2.9, 3.0, 7.0), tensor(3.0)
    y = clipped(x, alpha, (0, 3), to_nearest)
    assert y.tolist() == [0.0, 0.0, 1.0, 3.0, 3.0, 3.0]
    y.backward(torch.tensor([1.0, 10.0, 100.0, 1000.0, 1e4, 1e5]))
    assert x.grad.tolist() == [0.0, 10.0, 100.0, 1000.0, 0.0, 0.0]
    assert alpha.grad.tolist() == [1e4 + 1e5]


def test_pact_clip_of_both_signs_and_its_penalty() -> None:
    x, alpha = tensor(-5.0, 0.4, 5.0), tensor(1.0)
    y = clipped(x, alpha, (-2, 1), to_nearest)
    assert y.tolist() == [-2.0, 0.0, 1.0]
    y.backward(torch.tensor([1.0, 10.0, 100.0]))
    assert alpha.grad.tolist() == [100.0 - 1.0]
    method = PactActivations(Range(0.0, 4.0), Activations(2), math.inf, to_nearest)
    assert method.range() == Range(0.0, 4.0)
    method.penalty().backward()
    assert method.alpha.parts.grad.item() == pytest.approx(PENALTY)


LEVELS = (1.0, 2.0, 3.0)


@pytest.mark.parametrize(
    ("backward", "expected"),
    [
        ("plain", [0.0, 1.0, 1.0, 1.0, 1.0]),
        ("clipped", [0.0, 1.0, 1.0, 0.0, 0.0]),
        # Beyond the largest level 3: 1 / (z - 2).
        ("log", [0.0, 1.0, 1.0, 0.5, 0.25]),
    ],
)
def test_hwgq_gradients_of_the_three_rectifiers(backward: Any, expected: list[float]) -> None:
    # In deviations of 2: -1, 0.4, 1.6, 4, 6.
    x = tensor(-2.0, 0.8, 3.2, 8.0, 12.0)
    y = half_wave(x, torch.tensor(2.0), torch.tensor(LEVELS), backward, to_nearest)
    assert y.tolist() == [0.0, 0.0, 4.0, 6.0, 6.0]
    y.backward(torch.ones(5))
    assert x.grad.tolist() == pytest.approx(expected)


def test_hwgq_levels_that_are_not_even_take_the_nearest() -> None:
    x = torch.tensor([-1.0, 0.2, 0.3, 0.9, 5.0])
    y = half_wave(x, torch.tensor(1.0), torch.tensor([0.5, 1.5]), "clipped", to_nearest)
    assert y.tolist() == [0.0, 0.0, 0.5, 0.5, 1.5]


def bases(*numbers: float, origin: float | None) -> tuple[Any, Any, Any]:
    """Two bases over x; the thresholds are -1 and 2 in a unit of 2, so the windows [-2, 0) and [1, 3)."""
    x, beta, v = tensor(*numbers), tensor(1.0, 3.0), tensor(1.0, -0.5)
    y = several_bases(x, beta, v, torch.tensor(2.0), None if origin is None else torch.tensor(origin))
    y.backward(torch.tensor([1.0, 10.0, 100.0, 1000.0, 1e4, 1e5]))
    return x, beta, v


X = (-9.0, -1.5, -1.0, 0.5, 2.0, 9.0)


def test_abc_bases_are_steps_at_their_shifts_on_the_integers_of_eight_bits() -> None:
    x, beta, v = torch.tensor(X), torch.tensor([1.0, 3.0]), torch.tensor([1.0, -0.5])
    signed = several_bases(x, beta, v, torch.tensor(2.0), None)
    # -4, -2 and +4; 255 steps of 8 / 255, and zero is one of them.
    torch.testing.assert_close(signed, torch.tensor([-4.0, -4.0, -2.0, -2.0, 4.0, 4.0]), atol=4 / 255, rtol=0)
    steps = signed / (8 / 255)
    torch.testing.assert_close(steps, steps.round(), atol=1e-4, rtol=0)
    behind_relu = several_bases(x, beta, v, torch.tensor(2.0), torch.tensor(0.0))
    torch.testing.assert_close(behind_relu, torch.tensor([0, 0, 2.0, 2.0, 8.0, 8.0]), atol=8 / 510, rtol=0)


@pytest.mark.parametrize("origin", [None, 0.0])
def test_abc_gradients_pass_inside_the_windows(origin: float | None) -> None:
    x, beta, v = bases(*X, origin=origin)
    # Inside a window 2 beta / unit: of -1.5 and -1 the first base's, of 2 the second one's.
    assert x.grad.tolist() == [0.0, 10.0, 100.0, 0.0, 3e4, 0.0]
    assert v.grad.tolist() == [2 * 110.0, 6 * 1e4]
    passed = [111100.0, 110000.0]
    missed = [11.0, 1111.0]
    lost = [0.0, 0.0] if origin == 0.0 else missed
    expected = [(2 if origin == 0.0 else 1) * a - b for a, b in zip(passed, lost, strict=True)]
    assert beta.grad.tolist() == expected


def test_abc_starts_at_the_staircase_and_gives_it_back() -> None:
    for op in (
        Staircase((-1.0, 0.5, 2.0), (-3.0, -1.0, 1.0, 3.0)),
        Staircase((0.5, 1.5), (0.0, 1.0, 2.5)),
        # What came with a network may descend.
        Staircase((0.0, 1.0), (2.0, 1.0, 4.0)),
    ):
        method = AbcActivations(op, math.inf)
        back = method.staircase()
        assert back.thresholds == pytest.approx(op.thresholds, abs=1e-6)
        assert back.levels == pytest.approx(op.levels, abs=1e-6)
        x = torch.linspace(-4, 4, 101) + 0.003
        wanted = torch.from_numpy(op.run_float(None, [x.numpy()]))  # type: ignore[arg-type]
        spanned = max(0.0, *op.levels) - min(0.0, *op.levels)
        torch.testing.assert_close(method(x), wanted, rtol=0, atol=spanned / 255 * 1.001)


def test_abc_gradient_is_shared_by_the_numbers_of_a_sample() -> None:
    op = Staircase((0.5, 1.5), (0.0, 1.0, 2.5))
    method = AbcActivations(op, math.inf)
    x, g = torch.linspace(-1, 3, 48).reshape(3, 16), torch.ones(3, 16)
    method(x).backward(g)
    beta, v = method.beta().detach().requires_grad_(), method.v.detach().requires_grad_()
    several_bases(x, beta, v, method.unit, method.origin).backward(g)
    # Gradient descent with a rate of 1 moves beta, and not its parts, by the gradient over sqrt(16).
    torch.testing.assert_close(method.beta.start * method.beta.parts.grad, beta.grad / 4)
    torch.testing.assert_close(method.v.grad, v.grad / 4)


def test_lloyds_levels_are_those_of_eight_bits_and_half_way_goes_up() -> None:
    op = half_wave_steps_of(2.0)
    method = LloydActivations(op, math.inf).eval()
    back = method.staircase()
    assert back.levels == pytest.approx(op.levels, abs=op.levels[-1] / 510)
    step = back.levels[-1] / 255
    assert [v / step for v in back.levels] == pytest.approx([round(v / step) for v in back.levels], abs=1e-4)
    x = torch.linspace(-2, 6, 501)
    np.testing.assert_allclose(method(x).numpy(), back.run_float(None, [x.numpy()]), rtol=1e-5)  # type: ignore[arg-type]


def half_wave_steps_of(sigma: float) -> Staircase:
    return nearest(sigma * np.array([0.0, *half_wave_levels(2)]))


def test_ttq_gradients_of_weights_and_of_both_values() -> None:
    u, positive, negative = tensor(-1.0, -0.2, 0.02, 0.3, 0.9), tensor(2.0), tensor(3.0)
    y = ternary(u, positive, negative, 0.05)
    assert y.tolist() == [-3.0, -3.0, 0.0, 2.0, 2.0]
    y.backward(torch.tensor([1.0, 10.0, 100.0, 1000.0, 10000.0]))
    assert u.grad.tolist() == [3.0, 30.0, 100.0, 2000.0, 20000.0]
    assert positive.grad.tolist() == [11000.0]
    assert negative.grad.tolist() == [-11.0]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("wide", [0.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("hardtanh", [0.0, 0.0, 1.0, 1.0, 1.0, 0.0]),
        ("relu", [0.0, 0.0, 1.0, 1.0, 1.0, 1.0]),
        ("polynomial", [0.0, 0.0, 1.0, 2.0, 1.5, 0.0]),
    ],
)
def test_surrogates_of_the_sign(name: str, expected: list[float]) -> None:
    assert set(SURROGATES) == set(get_args(SignGradient))
    # Levels 0 and 4: u is (x - 2) / 2, here -3, -1.5, -0.5, 0, 0.25, 1.5.
    x = tensor(-4.0, -1.0, 1.0, 2.0, 2.5, 5.0)
    y = sign(x, 0.0, 4.0, SURROGATES[name])
    assert y.tolist() == [0.0, 0.0, 0.0, 4.0, 4.0, 4.0]
    y.backward(torch.ones(6))
    assert x.grad.tolist() == expected


def test_binary_weights_stay_within_their_bound_and_come_back() -> None:
    weights = tensor(-3.0, -1.0, 1.0, 3.0, -3.0, 3.0)
    result = held(weights, 2.0)
    assert result.tolist() == [-2.0, -1.0, 1.0, 2.0, -2.0, 2.0]
    # A step goes against the gradient: the first and the fourth would leave, the last two come back.
    result.backward(torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0, 1.0]))
    assert weights.grad.tolist() == [0.0, 1.0, 1.0, 0.0, -1.0, 1.0]


def test_binary_weights_lower_with_the_scale_that_they_trained_with() -> None:
    start = torch.tensor([[1.0, -1.0, 1.0, -1.0], [1.0, 1.0, -1.0, -1.0]])
    method = BinaryWeights(Binary(), start, 0, to_nearest)
    assert method.bound == ROOM
    moved = torch.tensor([[0.5, -0.5, 4.0, -1.0], [9.0, 9.0, -9.0, 9.0]])
    trained = method(moved)
    assert trained.tolist() == [[1.0, -1.0, 1.0, -1.0], [2.0, 2.0, -2.0, 2.0]]
    fitted = method.scheme().fit(moved.double().numpy())
    rows = fitted.lower(fitted.scales).rows * fitted.scales[:, None]
    assert np.array_equal(rows, trained.numpy())


def test_rounding_at_random_is_right_on_average_and_between_its_neighbours() -> None:
    torch.manual_seed(0)
    x = torch.full((20000,), -1.3)
    y = at_random(x)
    assert set(y.unique().tolist()) == {-2.0, -1.0}
    # Its standard deviation is sqrt(0.21 / 20000) = 0.0032.
    assert y.mean().item() == pytest.approx(-1.3, abs=0.015)


def test_weights_rounded_at_random_stay_on_their_grid_and_pass_the_gradient() -> None:
    torch.manual_seed(0)
    weights = torch.randn(4, 500, requires_grad=True)
    method = StraightThrough(Linear(4, fitting="max"), 0, at_random)
    one, two = method(weights), method(weights)
    steps = weights.detach().abs().amax(dim=1, keepdim=True) / 7
    for y in (one, two):
        q = y.detach() / steps
        torch.testing.assert_close(q, q.round(), atol=1e-4, rtol=0)
        assert (y - weights).detach().abs().max() <= steps.max() * 1.001
    assert not torch.equal(one, two)
    one.backward(torch.arange(2000.0).reshape(4, 500))
    assert weights.grad.flatten().tolist() == list(range(2000))


def test_dynamic_range_is_the_formula_and_its_table_within_a_254th_of_the_largest() -> None:
    w = np.random.default_rng(3).normal(0.1, 1, (5, 40))
    low, high = w.min(), w.max()
    wanted = np.round(7 * (w - low) / (high - low)) / 7 * (high - low) + low
    scheme = MinMaxRange(3)
    np.testing.assert_allclose(scheme.levels(w), wanted)
    y = straight_through(scheme, torch.tensor(w, dtype=torch.float32), 0).numpy()
    largest = np.abs(w).max()
    off = np.abs(y - wanted)
    # A weight at the border of two levels may go to the other one.
    assert np.quantile(off, 0.97) <= largest / 254 * 1.001
    assert len(np.unique(y.round(5))) <= 8
    c = quantize_linear(w.astype(np.float32), None, 0, 1.0, scheme)
    assert isinstance(c.form, Codebook)


def test_bits_go_down_by_two_in_the_first_half_of_the_epochs() -> None:
    assert [bits_at(3, 8, e, 12) for e in range(12)] == [8, 8, 6, 6, 4, 4, 3, 3, 3, 3, 3, 3]
    assert [bits_at(4, 8, e, 1) for e in range(1)] == [4]
    assert [bits_at(4, None, e, 3) for e in range(3)] == [4, 4, 4]
    assert [bits_at(8, 6, e, 3) for e in range(3)] == [8, 8, 8]


# Lowering.


def test_ttq_lowers_to_two_planes_whose_coefficients_are_its_values() -> None:
    rng = np.random.default_rng(0)
    w = rng.normal(0, 1, (6, 30)).astype(np.float32)
    values = (tuple(rng.uniform(0.1, 2, 6)), tuple(rng.uniform(0.1, 2, 6)))
    scheme = TrainedTernary(0.05, values)
    c = quantize_linear(w, None, 0, 1.0, scheme)
    assert isinstance(c.form, Planes)
    assert set(np.unique(c.form.signs[0])) == {0, 1}
    assert set(np.unique(c.form.signs[1])) == {0, -1}
    limit = 0.05 * np.abs(w).max(axis=1, keepdims=True)
    p, n = (np.array(v)[:, None] for v in values)
    wanted = np.where(w > limit, p, np.where(w < -limit, -n, 0.0))
    real = c.weights * np.array(c.scales)[:, None]
    # The larger value is exact, the smaller one within half a unit of 15 bits.
    np.testing.assert_allclose(real, wanted, rtol=0, atol=2.0 / 2**15)
    assert np.array_equal(real == 0, wanted == 0)


def test_normalization_that_is_folded_leaves_learned_integers_as_they_are() -> None:
    from tinydeploy.quantize.schemes.learned import Scaled, Stepped

    rng = np.random.default_rng(0)
    w, factors = rng.normal(0, 1, (4, 50)), rng.uniform(0.01, 50, 4)
    for scheme in (
        Stepped(Linear(3), (0.3, 0.4, 0.5, 0.2)),
        TrainedTernary(0.05, ((1.0,) * 4, (0.5,) * 4)),
        MinMaxRange(4),
    ):
        before = scheme.fit(w)
        after = Scaled(scheme, tuple(factors)).fit(w * factors[:, None])
        np.testing.assert_allclose(after.scales, before.scales * factors)
        assert np.array_equal(after.lower(after.scales).rows, before.lower(before.scales).rows)
