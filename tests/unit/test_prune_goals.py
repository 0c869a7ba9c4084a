"""Scope, ratios by layer, cost-aware ranking, goals that are measured, and steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from test_prune import Net, concatenated, residual

from tinydeploy.backends.c.project import ExportOptions
from tinydeploy.compression.pruning import Pruned, PruneOptions, prune
from tinydeploy.data import Samples
from tinydeploy.errors import DeployError
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.verify import graph_macs
from tinydeploy.measure import Job
from tinydeploy.ops import Add, Mean
from tinydeploy.prune import find_groups, importance, remove, select_by_macs, select_over_all
from tinydeploy.prune.cost import activations, cost_of, parameters, savings
from tinydeploy.prune.goal import PruneGoal, parse_goal
from tinydeploy.prune.names import find_layers, group_ratios
from tinydeploy.prune.search import fewest_removed
from tinydeploy.prune.select import SelectOptions, removal_order
from tinydeploy.target_cost import Reached, TargetCost, target_cost
from tinydeploy.targets import load_target

ONE = SelectOptions(divisor=1)


def widths(graph: Graph, removed: frozenset[int]) -> dict[str, int]:
    return {g.name: sum(c.root not in removed for c in g.channels) for g in find_groups(graph).groups}


def pruned(graph: Graph, goal: str | None, **given: Any) -> Pruned:
    """With identity for training; the steps are in `given["seen"]`."""
    seen: list[Graph] = given.pop("seen", [])
    measure = given.pop("measure", None)

    def train(candidate: Graph, epochs: int) -> Graph:
        assert epochs == 1
        seen.append(candidate)
        return candidate

    x = np.zeros((4, *graph.value(graph.inputs[0]).shape), np.float32)
    return prune(
        graph,
        parse_goal(goal),
        PruneOptions(**given),
        score=lambda candidate: graph_macs(candidate) / graph_macs(graph),
        measure=measure,
        train=train,
        drop=None,
        samples=Samples((x,), None, ()),
    )


def after(result: Pruned) -> dict[str, int]:
    return {name: left for name, _, left in result.widths}


# --- scope


def test_scope_layer_shrinks_every_group_by_the_same_fraction_until_the_goal_is_met() -> None:
    graph = residual()
    groups = find_groups(graph)
    # One group's channels all matter more, and with the scope `layer` that does not count.
    scores = importance(graph, groups, "l2")
    favoured = {c.root for c in groups.groups[0].channels}
    scores = {root: s + 100 * (root in favoured) for root, s in scores.items()}
    uniform = replace(ONE, scope="layer")
    removed = select_by_macs(graph, groups, scores, 0.5, uniform)
    left = widths(graph, removed)
    assert graph_macs(remove(graph, groups, removed)) <= 0.5 * graph_macs(graph)
    assert abs(left["stem"] / 8 - left["inner"] / 12) <= 1 / 8
    assert widths(graph, select_by_macs(graph, groups, scores, 0.5, ONE))["stem"] == 8


def test_scope_global_takes_a_ratio_of_all_channels_together() -> None:
    graph = residual()
    groups = find_groups(graph)
    scores = {c.root: float(i) for g in groups.groups for i, c in enumerate(g.channels)}
    removed = select_over_all(graph, groups, scores, 0.3, ONE)
    assert len(removed) == 6
    # Interleaved: channel i of either group has the importance i.
    assert widths(graph, removed) == {"stem": 5, "inner": 9}
    result = pruned(graph, "0.3", select=replace(ONE, scope="global"))
    assert sum(after(result).values()) == 14


def test_a_global_ratio_beyond_the_smallest_network_is_refused() -> None:
    graph = residual()
    groups = find_groups(graph)
    with pytest.raises(DeployError, match="smallest allowed"):
        select_over_all(graph, groups, importance(graph, groups, "l1"), 0.95, ONE)


def test_an_unknown_scope_is_refused() -> None:
    graph = residual()
    groups = find_groups(graph)
    options = SelectOptions(scope="network")  # type: ignore[arg-type]
    with pytest.raises(DeployError, match="--prune-scope"):
        select_by_macs(graph, groups, importance(graph, groups, "l1"), 0.5, options)


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("divisor", [1, 3, 4])
@pytest.mark.parametrize("cost_aware", [True, False])
def test_the_order_of_removal_is_nested_and_leaves_the_least(
    scope: Any, divisor: int, cost_aware: bool
) -> None:
    graph = concatenated()
    groups = find_groups(graph)
    options = SelectOptions(divisor, scope=scope, cost_aware=cost_aware)
    order = removal_order(graph, groups, importance(graph, groups, "l2"), options)
    for count in range(len(order.blocks)):
        assert order.first(count) < order.first(count + 1)
        remove(graph, groups, order.first(count))
    for name, left in widths(graph, order.first(len(order.blocks))).items():
        size = next(len(g.channels) for g in groups.groups if g.name == name)
        assert left >= max(0.125 * size, min(divisor, size))
        assert left % divisor == 0 or left == size


# --- ratios by layer


def test_a_ratio_for_a_layer_wins_over_the_global_one() -> None:
    graph = residual()
    result = pruned(graph, "0.25", select=ONE, ratios={"inner": 0.5})
    assert after(result) == {"stem": 6, "inner": 6}
    assert after(pruned(graph, None, select=ONE, ratios={"inner": 0.5})) == {"stem": 8, "inner": 6}
    assert after(pruned(graph, "0.25", select=ONE, ratios={"inner": 0.0})) == {"stem": 6, "inner": 12}


def test_a_ratio_for_a_layer_holds_for_all_that_go_with_it() -> None:
    assert after(pruned(residual(), None, select=ONE, ratios={"outer": 0.25})) == {"stem": 6, "inner": 12}


@pytest.mark.parametrize("goal", ["macs=60%", "params=60%"])
def test_a_goal_is_reached_around_a_layer_with_its_own_ratio(goal: str) -> None:
    graph = residual()
    result = pruned(graph, goal, select=ONE, ratios={"stem": 0.0})
    assert after(result)["stem"] == 8
    cost = cost_of(goal.partition("=")[0])
    assert cost(result.graph) <= 0.6 * cost(graph)


@pytest.mark.parametrize(
    ("ratios", "fact"),
    [
        ({"nowhere": 0.5}, "there is no layer 'nowhere'"),
        ({"head": 0.5}, "must stay"),
        ({"stem": 1.0}, "not in"),
        ({"stem": float("nan")}, "not in"),
        ({"stem": 0.5, "outer": 0.25}, "two ratios"),
    ],
)
def test_a_ratio_that_no_layer_can_have_is_refused(ratios: Mapping[str, float], fact: str) -> None:
    with pytest.raises(DeployError, match=fact) as error:
        pruned(residual(), "0.25", ratios=ratios)
    assert error.value.where == "--prune-layer"


def test_layers_are_found_by_the_name_that_is_printed() -> None:
    graph = residual()
    nodes = tuple(replace(n, name=f"{n.name};relu;bias") for n in graph.nodes)
    graph = replace(graph, nodes=nodes)
    assert find_layers(graph, ["stem", "inner;relu;bias"], "--protect") == (
        "stem;relu;bias",
        "inner;relu;bias",
    )
    assert group_ratios(graph, find_groups(graph), {"outer": 0.5}, "") == {"stem;relu;bias": 0.5}
    twice = replace(graph, nodes=(*nodes[:-1], replace(nodes[-1], name="stem;other")))
    with pytest.raises(DeployError, match="2 layers have the name 'stem'"):
        find_layers(twice, ["stem"], "--protect")


def test_a_protected_layer_that_does_not_exist_is_named() -> None:
    with pytest.raises(DeployError, match="'nowhere'") as error:
        pruned(residual(), "0.25", protect=("nowhere",))
    assert error.value.where == "--protect"


def test_protected_residuals_leave_what_an_addition_shares() -> None:
    graph = residual()
    shared = {n for node in graph.nodes if isinstance(node.op, Add) for n in node.inputs}
    result = pruned(graph, "0.5", protect_residual=True)
    assert [(name, after < before) for name, before, after in result.widths] == [("inner", True)]
    assert all(result.graph.value(n).shape == graph.value(n).shape for n in shared)
    assert len(pruned(graph, "0.5").widths) > 1, "without the protection the sums are pruned as well"


# --- cost


def test_a_channel_saves_what_its_removal_takes_off_the_cost() -> None:
    graph = residual()
    groups = find_groups(graph)
    share = savings(graph, groups, graph_macs, 1)
    # inner: 36 places, 3x3 kernels, read from 8 and written for 8 channels.
    assert share["inner"] * graph_macs(graph) == pytest.approx(36 * 9 * (8 + 8))
    assert savings(graph, groups, activations, 1)["inner"] * activations(graph) == pytest.approx(36)
    assert savings(graph, groups, parameters, 1)["inner"] * parameters(graph) == pytest.approx(72 + 1 + 72)


def test_cost_aware_ranking_takes_the_costly_of_two_equally_important_channels() -> None:
    graph = residual()
    groups = find_groups(graph)
    scores = dict.fromkeys((c.root for g in groups.groups for c in g.channels), 1.0)
    share = savings(graph, groups, graph_macs, 1)
    costly = max(share, key=share.__getitem__)
    first = removal_order(graph, groups, scores, replace(ONE, cost_aware=True), graph_macs).blocks[0]
    assert first[0] in {c.root for g in groups.groups if g.name == costly for c in g.channels}
    # Six times as important and less than six times as costly: the other one goes.
    dear = {c.root for g in groups.groups if g.name == costly for c in g.channels}
    scores = {root: 6.0 if root in dear else 1.0 for root in scores}
    assert share[costly] < 6 * min(share.values())
    first = removal_order(graph, groups, scores, replace(ONE, cost_aware=True), graph_macs).blocks[0]
    assert first[0] not in dear


# --- goals that are measured


def test_the_search_finds_the_largest_network_within_the_limit_with_few_measurements() -> None:
    net = Net(1, 4, 4, 3)
    x = net.conv("c", net.conv("b", net.conv("a", "x", 48), 64), 32)
    graph = net.graph(net.dense("head", net.add("mean", Mean((1, 2)), x, shape=(1, 32)), 4))
    groups = find_groups(graph)
    order = removal_order(graph, groups, importance(graph, groups, "l2"), ONE)

    def measure(candidate: Graph) -> float:
        return 5e4 + 1.3 * graph_macs(candidate)

    counted = [measure(remove(graph, groups, order.first(k))) for k in range(len(order.blocks) + 1)]
    for share in (0.95, 0.7, 0.5, 0.3):
        limit = share * measure(graph)
        found = fewest_removed(graph, groups, order, measure, graph_macs, limit, measure(graph))
        best = next(k for k, cost in enumerate(counted) if cost <= limit)
        assert found.removed == order.first(best)
        assert found.measured == counted[best]
        # The smallest network, the one foretold, and its neighbours; bisection takes seven.
        assert found.measurements <= 4


def test_a_cost_that_jumps_is_met_all_the_same() -> None:
    graph = residual()
    groups = find_groups(graph)
    order = removal_order(graph, groups, importance(graph, groups, "l2"), ONE)
    whole = float(graph_macs(graph))

    def measure(candidate: Graph) -> float:
        # Kernels that take four channels at a time: a cost in stairs, and a cheap proxy that is no line.
        return whole * (0.2 + 0.8 * np.ceil(4 * graph_macs(candidate) / whole) / 4)

    found = fewest_removed(graph, groups, order, measure, parameters, 0.7 * whole, whole)
    assert found.removed is not None
    assert measure(remove(graph, groups, found.removed)) == found.measured <= 0.7 * whole
    assert found.measurements <= 2 * np.log2(len(order.blocks)) + 1


@pytest.mark.parametrize("goal", ["latency=60%", "flash=60%", "ram=80%", "latency=9000us"])
def test_a_measured_goal_is_kept_and_reported(goal: str) -> None:
    graph = residual()
    kind = goal.partition("=")[0]

    def measure(candidate: Graph) -> float:
        return 15.0 * cost_of(kind)(candidate) / cost_of(kind)(graph)

    result = pruned(graph, goal, select=ONE, measure=measure)
    assert result.limit is not None
    assert result.limit.before == 15.0
    assert result.limit.allowed == pytest.approx({"latency=9000us": 9.0, "ram=80%": 12.0}.get(goal, 9.0))
    assert measure(result.graph) <= result.limit.allowed


def test_a_network_that_fits_already_stays_whole() -> None:
    graph = residual()
    result = pruned(graph, "latency=20ms", measure=lambda candidate: 19.0)
    assert all(a == b for _, a, b in result.widths)


def test_a_limit_that_no_network_keeps_is_refused_with_what_is_possible() -> None:
    with pytest.raises(DeployError, match="smallest allowed network takes 40 of 20"):
        pruned(residual(), "latency=20ms", measure=lambda candidate: 40.0)


# --- steps


@pytest.mark.parametrize("goal", ["0.3", "macs=50%", "params=50%", "latency=50%", "auto"])
@pytest.mark.parametrize("scope", [None, "global", "layer"])
def test_steps_end_where_one_step_ends_and_train_in_between(goal: str, scope: Any) -> None:
    graph = residual()
    seen: list[Graph] = []

    def given() -> dict[str, Any]:
        return {"select": replace(ONE, scope=scope), "measure": graph_macs, "allowed_drop": 0.5}

    once = pruned(graph, goal, **given())
    thrice = pruned(graph, goal, steps=3, seen=seen, **given())
    sizes = [graph_macs(g) for g in (graph, *seen, thrice.graph)]
    assert len(seen) == 2
    assert all(a >= b for a, b in pairwise(sizes))
    assert sizes[-1] < sizes[0]
    if not goal.startswith(("macs", "params")) and scope != "global":
        assert after(thrice) == after(once)


def test_rounding_in_one_step_is_made_up_for_in_the_next() -> None:
    # 8 and 12 channels in blocks of 4: no step by itself takes a whole block of 8 channels.
    result = pruned(residual(), "0.5", select=SelectOptions(divisor=4), steps=3)
    assert after(result) == {"stem": 4, "inner": 8}


# --- targets


def job(graph: Graph) -> Job:
    return Job(graph, ExportOptions("m", "t", "latency", ""), load_target("cortex-m4").core)


@pytest.mark.parametrize(
    ("goal", "target", "unit"),
    [
        ("flash=64k", "cortex-m4", "B"),
        ("ram=50%", "nucleo-l4r5zi", "B"),
        ("latency=20ms", "nucleo-l4r5zi", "ms"),
        ("latency=50%", "nucleo-l4r5zi", "ms"),
        ("latency=50%", "cortex-m4", "cycles"),
    ],
)
def test_what_a_target_measures(goal: str, target: str, unit: str) -> None:
    cost = target_cost(parse_goal(goal), load_target(target), job)
    assert isinstance(cost, TargetCost)
    assert cost.unit == unit
    assert target_cost(PruneGoal("macs", 0.5), load_target(target), job) is None


@pytest.mark.parametrize(
    ("goal", "target", "fact", "hint"),
    [
        ("latency=20ms", "cortex-m4", "without a clock", "latency=50%"),
        ("latency=50%", "host", "not measured on the host", "core or board"),
        ("flash=64k", "host", "not measured on the host", "core or board"),
    ],
)
def test_a_target_that_cannot_tell_says_why(goal: str, target: str, fact: str, hint: str) -> None:
    with pytest.raises(DeployError, match=fact) as error:
        target_cost(parse_goal(goal), load_target(target), job)
    assert hint in error.value.hint


def test_a_core_without_timings_says_so() -> None:
    target = load_target("nucleo-l4r5zi")
    bare = replace(target, core=replace(target.core, timing=None))
    with pytest.raises(DeployError, match="no model of the cycles of cortex-m4"):
        target_cost(parse_goal("latency=20ms"), bare, job)


def test_a_goal_that_training_moved_away_from_is_missed() -> None:
    reached = Reached("latency", "ms", 20.0, 40.0, 20.4)
    assert reached.missed == "latency: 20.4 ms taken and 20.0 ms allowed"
    assert Reached("flash", "B", 65536, 1e5, 65536).missed is None
    assert Reached("flash", "B", 65536, 1e5, 65537).missed == "flash: 65,537 B taken and 65,536 B allowed"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("latency=50%", PruneGoal("latency", 0.5, relative=True)),
        ("flash=75%", PruneGoal("flash", 0.75, relative=True)),
        ("latency=0.5s", PruneGoal("latency", 500.0)),
        ("latency=250us", PruneGoal("latency", 0.25)),
    ],
)
def test_relative_goals_and_units_are_read(text: str, expected: PruneGoal) -> None:
    assert parse_goal(text) == expected


@pytest.mark.parametrize("text", ["latency=20", "latency=0%", "ram=101%", "latency=ms", "latency=-1ms"])
def test_an_amount_without_meaning_is_refused(text: str) -> None:
    with pytest.raises(DeployError, match="--prune"):
        parse_goal(text)
