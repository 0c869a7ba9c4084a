"""`--bits auto`: candidates, the front, and what a loss or a budget takes."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from low_bit_cases import network, samples

from tinydeploy.analysis.bits import stored_bits
from tinydeploy.cli.main import cli
from tinydeploy.compression.bits_search import (
    Bound,
    Budget,
    Measured,
    Search,
    bits_option,
    bound_of,
    search_bits,
    smallest,
    wanted_bits,
    with_front,
)
from tinydeploy.data import Samples
from tinydeploy.engine import run
from tinydeploy.errors import DeployError
from tinydeploy.measure import silent
from tinydeploy.precision.activations import shared_activations
from tinydeploy.precision.allocate import uniform
from tinydeploy.precision.measures import BITS, Wanted, measure, weights_of
from tinydeploy.precision.mixtures import Mixture, candidates, path, spread
from tinydeploy.quantize import QuantizeOptions, quantize
from tinydeploy.quantize.calibrate import calibrate

pytest.importorskip("torch")
DIGITS = Path(__file__).parents[2] / "fixtures" / "digits"


def test_a_path_takes_each_bit_where_a_saved_bit_costs_least() -> None:
    # At 2, 3, ..., 8 bits.
    noise = {"small": [9.0, 3.0, 2.0, 1.0, 0.9, 0.8, 0.7], "large": [8.0, 4.0, 2.0, 1.0, 0.5, 0.2, 0.0]}
    steps = path(noise, {"small": 1, "large": 10})
    assert steps[0] == {"small": 8, "large": 8}
    assert steps[-1] == {"small": 2, "large": 2}
    assert len(steps) == 13
    # large: 0.2 for 10 weights; small: 0.1 for one.
    assert steps[1] == {"small": 8, "large": 7}
    # 0.03, then 0.05, then 0.1 a weight against 0.1: the first of equals.
    assert steps[3] == {"small": 8, "large": 5}
    for before, after in pairwise(steps):
        assert sum(before.values()) - sum(after.values()) == 1


def test_some_of_a_path_are_spread_over_its_bytes() -> None:
    steps = [{"a": b} for b in range(8, 1, -1)]
    means = [step["a"] for step in spread(steps, {"a": 10})]
    assert means == sorted(means, reverse=True)
    assert max(means) < 8
    assert min(means) > 2


def measured(wanted: Wanted) -> Any:
    graph = network()
    x = samples(graph, 8)
    y = run(graph, x)[0].reshape(8, -1).argmax(axis=1)
    return measure(graph, x, y, wanted)


@pytest.mark.parametrize("wanted", [Wanted(), Wanted(4, None), Wanted(None, None), Wanted(None, 6)])
def test_candidates_are_uniform_and_mixed_and_none_comes_twice(wanted: Wanted) -> None:
    graph = network()
    found = candidates(measured(wanted))
    assert {m.source for m in found} == {"uniform", "noise gain", "sensitivity", "Hessian"}
    assert len({(tuple(m.bits.items()), tuple(m.activations.items())) for m in found}) == len(found)
    assert all(set(m.bits) == set(weights_of(graph)) for m in found)
    given = [set(m.bits.values()) for m in found]
    computed = [set(m.activations.values()) for m in found]
    for all_, one in ((given, wanted.weights), (computed, wanted.activations)):
        assert all(bits <= set(BITS) for bits in all_)
        if one is None:
            assert any(len(bits) > 1 for bits in all_)
            assert {b for bits in all_ for b in bits} >= {2, 4, 8}
        else:
            assert all(bits == {one} for bits in all_)


def test_uniform_candidates_of_both_lower_weights_alone_as_well() -> None:
    found = [m for m in candidates(measured(Wanted(None, None))) if m.source == "uniform"]
    pairs = [(min(m.bits.values()), min(m.activations.values())) for m in found]
    assert sorted(pairs) == sorted([*((b, b) for b in BITS), *((b, 8) for b in BITS[:-1])])


def test_activations_of_a_residual_network_are_one_a_quantization() -> None:
    graph = network()
    ranges = calibrate(graph, samples(graph, 8))
    found = shared_activations(graph, ranges)
    # Input and output of the network are the caller's; the pool copies the integers of the convolution.
    made = [n.outputs[0] for n in graph.nodes]
    assert [s.tensors for s in found] == [*((n,) for n in made[:4]), tuple(made[4:6]), (made[6],)]
    pooled = next(s for s in found if len(s.tensors) == 2)
    assert pooled.sources == pooled.tensors[:1]
    assert pooled.elements == graph.value(pooled.name).elements


def entries(*pairs: tuple[int, float]) -> list[Measured]:
    return [Measured("x", (), (), 0.0, 8.0, size, size, value) for size, value in pairs]


def test_the_front_holds_what_no_smaller_one_equals() -> None:
    table = with_front(entries((10, 0.5), (20, 0.4), (30, 0.9), (40, 0.9), (50, 0.95)))
    assert [m.front for m in table] == [True, False, True, False, True]


def test_a_loss_takes_the_smallest_and_else_the_best() -> None:
    table = entries((10, 0.5), (20, 0.8), (30, 0.9), (40, 0.85))
    assert smallest(table, 0.8) == 1
    assert smallest(table, 0.81) == 2
    assert smallest(table, 0.99) == 2


class Cost:
    """Stands for a measurement on a target: bytes of the constants, plus 1000 of code."""

    kind, unit, target = "flash", "B", "cortex-m4"

    def __call__(self, graph: Any) -> float:
        return 1000.0 + sum(v.bytes for v in graph.constants())


def searched(search: Search) -> Any:
    graph = network()
    x = samples(graph, 64)
    y = run(graph, x)[0].reshape(64, -1).argmax(axis=1)
    return search_bits(graph, x, y, search, Samples(tuple(x), y, ()), QuantizeOptions(), silent)


def test_a_search_by_loss_keeps_it() -> None:
    found = searched(Search(0.1))
    (taken,) = [m for m in found.table if m.chosen]
    assert taken.value >= 0.9
    assert all(m.value < 0.9 for m in found.table if m.weights_bytes < taken.weights_bytes)
    assert all(b == 8 for m in found.table for _, b in m.activation_bits)
    graph = network()
    made = quantize(graph, samples(graph, 64), QuantizeOptions(recipe=found.recipe))
    assert sum(v.bytes for v in made.constants()) == taken.weights_bytes


def test_a_search_of_both_takes_what_holds_the_fewest_bits_and_has_them() -> None:
    found = searched(Search(0.1, None, Wanted(None, None)))
    (taken,) = [m for m in found.table if m.chosen]
    assert taken.value >= 0.9
    assert all(m.value < 0.9 for m in found.table if m.held_bits < taken.held_bits)
    assert taken.mean_activation_bits < 7.0
    graph = network()
    made = quantize(graph, samples(graph, 64), QuantizeOptions(recipe=found.recipe))
    assert {n: stored_bits(made.value(n)) for n, _ in taken.activation_bits} == dict(taken.activation_bits)
    flowing = [v for v in made.values.values() if not v.is_constant]
    held = sum(v.elements * stored_bits(v) for v in flowing)
    weights = sum(weights_of(graph)[name] * bits for name, bits in taken.bits)
    assert taken.held_bits == held + weights
    assert taken.mean_activation_bits == pytest.approx(held / sum(v.elements for v in flowing))


def test_the_bound_of_a_loss_is_that_of_the_searched_tensors() -> None:
    measures = measured(Wanted(None, None))
    four = uniform(measures.gains, 4).bound
    found = bound_of(measures, four)
    assert found is not None
    assert (found.loss, found.uniform) == (four, 4)
    assert found.base is not None
    assert found.base <= 4
    # Eight bits everywhere do not reach this, and more cannot be stored.
    assert bound_of(measures, 0.5 * uniform(measures.gains, 8).bound) == Bound(
        0.5 * uniform(measures.gains, 8).bound, None, None
    )
    assert bound_of(measures, None) is None


@pytest.mark.slow
def test_a_search_by_budget_takes_the_best_that_fits() -> None:
    eight = next(m for m in searched(Search(1.0)).table if m.mean_bits == 8.0)
    for budget in (
        Budget(Cost(), 1000.0 + 0.6 * eight.weights_bytes),  # type: ignore[arg-type]
        Budget(Cost(), None, 0.8),  # type: ignore[arg-type]
    ):
        found = searched(Search(None, budget))
        allowed = budget.allowed or 0.8 * (1000.0 + eight.weights_bytes)
        (taken,) = [m for m in found.table if m.chosen]
        assert taken.cost is not None
        assert taken.cost <= allowed
        fitting = [m for m in found.table if m.weights_bytes + 1000 <= allowed]
        assert taken.value == max(m.value for m in fitting)
        assert found.unit == "B"
    with pytest.raises(DeployError, match="the least is"):
        searched(Search(None, Budget(Cost(), 1001.0)))  # type: ignore[arg-type]


def test_the_recipe_of_a_mixture_has_its_bits() -> None:
    graph = network()
    names = list(weights_of(graph))
    tensors = [n for s in shared_activations(graph, calibrate(graph, samples(graph))) for n in s.tensors]
    mixture = Mixture("x", {n: 2 + i for i, n in enumerate(names)}, dict.fromkeys(tensors[:3], 3))
    made = quantize(graph, samples(graph), QuantizeOptions(recipe=mixture.recipe))
    for node in graph.nodes:
        if node.name in mixture.bits:
            weights = made.value(str(next(n for n in made.nodes if n.name == node.name).inputs[1]))
            assert weights.form.bits == mixture.bits[node.name]  # type: ignore[union-attr]
    # What an addition reads too has its own bits.
    assert [stored_bits(made.value(n)) for n in tensors] == [3, 3, 3, *[8] * (len(tensors) - 3)]


def test_what_is_searched_follows_from_the_option() -> None:
    given = {"auto": Wanted(None, 8), "auto:auto": Wanted(None, None), "4:auto": Wanted(4, None)}
    given |= {"auto:6": Wanted(None, 6)}
    assert {text: wanted_bits(text) for text in given} == given
    assert wanted_bits("4:8") is None
    assert wanted_bits(None) is None
    for wrong in ("auto:9", "1:auto", "auto:", "auto:auto:auto", "44:auto"):
        with pytest.raises(DeployError, match="is not possible"):
            wanted_bits(wrong)


@pytest.mark.parametrize(
    ("bits", "drop", "budget"),
    [("auto", None, None), ("4", None, "flash=1k"), ("auto", None, "macs=50%"), ("auto", 0.1, "0.5")],
)
def test_what_auto_cannot_do_is_refused(bits: str, drop: float | None, budget: str | None) -> None:
    with pytest.raises(DeployError):
        bits_option(bits, drop, budget)


@pytest.mark.slow
@pytest.mark.parametrize(("bits", "size"), [("auto", "weights_bytes"), ("auto:auto", "held_bits")])
def test_the_command_prints_the_front_and_reports_all(tmp_path: Path, bits: str, size: str) -> None:
    given = ["compress", str(DIGITS / "digits.pt2"), "--data", str(DIGITS / "train.npz")]
    given += ["--eval-data", str(DIGITS / "test.npz"), "--bits", bits, "--max-accuracy-drop", "0.02"]
    result = CliRunner().invoke(cli, [*given, "-o", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "bits by layer" in result.output
    assert "noise gains guarantee" in result.output
    report = json.loads((tmp_path / "report.json").read_text())
    (taken,) = [m for m in report["bits"] if m["chosen"]]
    assert f"{taken['mean_bits']:.2f}" in result.output
    assert f"{taken['mean_activation_bits']:.2f}" in result.output
    eight = max(report["bits"], key=lambda m: m["held_bits"])
    assert eight["mean_bits"] == eight["mean_activation_bits"] == 8.0
    assert taken[size] < 0.8 * eight[size]
    assert (taken["mean_activation_bits"] < 8.0) == (bits == "auto:auto")
    assert report["before"]["value"] - report["after"]["value"] <= 0.02
    assert np.isclose(report["after"]["weights_bytes"], taken["weights_bytes"])
