"""`inspect --memory`: the plan as a picture, and how near it is to the best one."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from shared import model_path, needs_data
from sweeps import thinned

from tinydeploy.cli.main import cli
from tinydeploy.plan import Plan
from tinydeploy.plan.arena import Placement, pack
from tinydeploy.plan.storage import Buffer, Storage
from tinydeploy.report.memory import optimality


def plan(arena: int, bound: int) -> Plan:
    return Plan(arena, bound, (), Storage((), {}, {}, {}, frozenset()))


def test_a_plan_that_meets_its_lower_bound_is_called_the_least_possible() -> None:
    buffers = [Buffer("x", 100, 0, 1, ("x",)), Buffer("y", 60, 1, 2, ("y",))]
    end = max(p.end for p in pack(buffers))
    assert isinstance(pack(buffers)[0], Placement)
    assert "the least possible: so much" in optimality(plan(end, 160))


def test_any_other_states_how_far_it_can_be_from_the_best() -> None:
    assert optimality(plan(1050, 1000)) == (
        "at most 50 B (5.0 %) above the least possible: 1,000 B are live at once"
    )


@needs_data
@pytest.mark.parametrize("optimize", thinned(["ram", "latency"], 2))
def test_the_plan_for_a_target_is_that_of_the_export(optimize: str) -> None:
    base = ["inspect", str(model_path("vww")), "--memory", "--target", "cortex-m4", "--optimize", optimize]
    picture = CliRunner().invoke(cli, base)
    assert picture.exit_code == 0, picture.output
    document = json.loads(CliRunner().invoke(cli, [*base, "--json"]).stdout)
    assert document["arena_lower_bound_bytes"] <= document["arena_bytes"]
    first = picture.output.splitlines()[0]
    assert first.startswith(f"arena {document['arena_bytes']:,} B, ")
    assert "least possible" in first


@needs_data
@pytest.mark.slow
def test_ram_is_planned_with_less_than_latency() -> None:
    def arena(optimize: str) -> int:
        command = ["inspect", str(model_path("vww")), "--memory", "--target", "cortex-m4", "--json"]
        return int(
            json.loads(CliRunner().invoke(cli, [*command, "--optimize", optimize]).stdout)["arena_bytes"]
        )

    assert arena("ram") < arena("latency")
