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

from tinydeploy.bits_search import (
    Budget,
    Measured,
    Search,
    bits_option,
    search_bits,
    smallest,
    with_front,
)
from tinydeploy.cli.main import cli
from tinydeploy.data import Samples
from tinydeploy.engine import run
from tinydeploy.errors import DeployError
from tinydeploy.measure import silent
from tinydeploy.precision.mixtures import BITS, Mixture, candidates, path, spread, weights_of
from tinydeploy.quantize import QuantizeOptions, quantize

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
    means = [m.mean_bits({"a": 10}) for m in spread("x", steps, {"a": 10})]
    assert means == sorted(means, reverse=True)
    assert max(means) < 8
    assert min(means) > 2


def test_candidates_are_uniform_and_mixed_and_none_comes_twice() -> None:
    graph = network()
    x = samples(graph, 8)
    y = run(graph, x)[0].reshape(8, -1).argmax(axis=1)
    found = candidates(graph, x, y)
    assert {m.source for m in found} == {"uniform", "noise gain", "sensitivity", "Hessian"}
    assert len({tuple(m.bits.items()) for m in found}) == len(found)
    assert all(set(m.bits) == set(weights_of(graph)) for m in found)
    assert all(2 <= b <= 8 for m in found for b in m.bits.values())
    assert sum(m.source == "uniform" for m in found) == len(BITS)


def entries(*pairs: tuple[int, float]) -> list[Measured]:
    return [Measured("x", (), 0.0, size, value) for size, value in pairs]


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
    graph = network()
    made = quantize(graph, samples(graph, 64), QuantizeOptions(recipe=found.recipe))
    assert sum(v.bytes for v in made.constants()) == taken.weights_bytes


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
    mixture = Mixture("x", {name: 2 + i for i, name in enumerate(names)})
    made = quantize(graph, samples(graph), QuantizeOptions(recipe=mixture.recipe))
    for node in graph.nodes:
        if node.name in mixture.bits:
            weights = made.value(str(next(n for n in made.nodes if n.name == node.name).inputs[1]))
            assert weights.form.bits == mixture.bits[node.name]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("bits", "drop", "budget"),
    [("auto", None, None), ("4", None, "flash=1k"), ("auto", None, "macs=50%"), ("auto", 0.1, "0.5")],
)
def test_what_auto_cannot_do_is_refused(bits: str, drop: float | None, budget: str | None) -> None:
    with pytest.raises(DeployError):
        bits_option(bits, drop, budget)


@pytest.mark.slow
def test_the_command_prints_the_front_and_reports_all(tmp_path: Path) -> None:
    given = ["compress", str(DIGITS / "digits.pt2"), "--data", str(DIGITS / "train.npz")]
    given += ["--eval-data", str(DIGITS / "test.npz"), "--bits", "auto", "--max-accuracy-drop", "0.02"]
    result = CliRunner().invoke(cli, [*given, "-o", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "bits of weights by layer" in result.output
    report = json.loads((tmp_path / "report.json").read_text())
    (taken,) = [m for m in report["bits"] if m["chosen"]]
    eight = next(m for m in report["bits"] if m["mean_bits"] == 8.0)
    assert taken["weights_bytes"] < 0.8 * eight["weights_bytes"]
    assert report["before"]["value"] - report["after"]["value"] <= 0.02
    assert np.isclose(report["after"]["weights_bytes"], taken["weights_bytes"])
