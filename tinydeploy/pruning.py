"""Pruning towards a goal: the steps of importance, selection, removal and training in between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tinydeploy.data import Samples
from tinydeploy.errors import DeployError
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import Array
from tinydeploy.ir.verify import graph_macs
from tinydeploy.measure import Progress, silent
from tinydeploy.prune import (
    Groups,
    find_groups,
    importance,
    remove,
    select_by_macs,
    select_by_params,
    select_by_ratio,
)
from tinydeploy.prune.goal import PruneGoal
from tinydeploy.prune.select import SelectOptions
from tinydeploy.prune.sensitivity import Sensitivity, choose_ratios, scan_sensitivity

Train = Callable[[Graph, int], Graph]
"""Fine-tunes a graph for a number of epochs."""

_SEARCH_STEPS = 8


@dataclass(frozen=True)
class PruneOptions:
    """How to prune.

    Attributes:
        importance: a name of `prune.IMPORTANCES`.
        protect: layers that keep all their channels.
        steps: 1 prunes at once; more prune a part each and fine-tune `step_epochs` in between.
        ratios: a ratio by group name, instead of one for all.
        scan_samples: samples of the sensitivity scan.
        allowed_drop: of `auto` before any fine-tuning, where no --max-accuracy-drop is given.
    """

    importance: str = "l2"
    select: SelectOptions = field(default_factory=SelectOptions)
    protect: tuple[str, ...] = ()
    steps: int = 1
    step_epochs: int = 1
    ratios: dict[str, float] = field(default_factory=dict)
    scan_samples: int = 512
    allowed_drop: float = 0.01
    seed: int = 0


@dataclass(frozen=True)
class Pruned:
    """The smaller graph.

    Attributes:
        widths: name of each group, and its channels before and after; empty where nothing was asked for.
    """

    graph: Graph
    widths: tuple[tuple[str, int, int], ...]
    sensitivity: Sensitivity | None


def prune(
    graph: Graph,
    goal: PruneGoal,
    options: PruneOptions,
    *,
    score: Callable[[Graph], float],
    fits: Callable[[Graph], bool] | None,
    train: Train,
    drop: float | None,
    samples: Samples,
    progress: Progress = silent,
) -> Pruned:
    """Removes channels until the goal is reached.

    Args:
        score: accuracy of a candidate, for `auto`.
        fits: whether a candidate keeps a goal in flash or RAM.
        drop: accuracy that `auto` may give away before fine-tuning.

    Raises:
        DeployError: the goal cannot be reached or measured.
    """
    if goal.kind == "none" and not options.ratios:
        return Pruned(graph, (), None)
    before = {g.name: len(g.channels) for g in find_groups(graph, options.protect).groups}
    if not before:
        raise DeployError("has no channels that may be removed", where=graph.source, hint="leave --prune out")
    scan = None
    if goal.kind == "auto":
        result, scan = _automatic(graph, options, score, drop, samples, progress)
    elif goal.kind in ("flash", "ram"):
        result = _until_it_fits(graph, goal, options, fits, samples)
    elif goal.kind == "latency":
        raise DeployError(
            "no latency is modelled in this version",
            where="--prune",
            hint="give a goal in macs, flash or ram",
        )
    else:
        result = _in_steps(graph, goal, options, train, samples)
    after = {name: _width(result, name) for name in before}
    return Pruned(result, tuple((name, before[name], after[name]) for name in before), scan)


def _width(graph: Graph, layer: str) -> int:
    node = next(n for n in graph.nodes if n.name == layer)
    return graph.value(node.outputs[0]).shape[-1]


def _scores(graph: Graph, groups: Groups, options: PruneOptions, samples: Samples) -> dict[int, float]:
    gradients: dict[str, Array] | None = None
    if options.importance == "taylor":
        from tinydeploy.finetune import weight_gradients  # noqa: PLC0415

        if samples.labels is None:
            raise DeployError("taylor importance needs labels", where="--data", hint="add an array y")
        few = options.scan_samples
        gradients = weight_gradients(graph, samples.inputs[0][:few], samples.labels[:few])
    return importance(graph, groups, options.importance, gradients=gradients, seed=options.seed)


def _in_steps(graph: Graph, goal: PruneGoal, options: PruneOptions, train: Train, samples: Samples) -> Graph:
    """A ratio or a share of MACs or parameters, in equal factors a step."""
    result = graph
    for step in range(options.steps):
        groups = find_groups(result, options.protect)
        scores = _scores(result, groups, options, samples)
        left = 1.0 - goal.amount if goal.kind == "ratio" else goal.amount
        share = left ** (1.0 / options.steps)
        if step == options.steps - 1 and goal.kind in ("macs", "params"):
            cost = graph_macs if goal.kind == "macs" else _params
            share = left * cost(graph) / cost(result)
        removed = _select(result, groups, scores, goal.kind, share, options)
        result = remove(result, groups, removed)
        if step < options.steps - 1:
            result = train(result, options.step_epochs)
    return result


def _params(graph: Graph) -> int:
    return sum(v.elements for v in graph.constants())


def _select(
    graph: Graph, groups: Groups, scores: dict[int, float], kind: str, share: float, options: PruneOptions
) -> frozenset[int]:
    if options.ratios:
        return select_by_ratio(groups, scores, options.ratios, options.select)
    if kind == "ratio":
        return select_by_ratio(groups, scores, 1.0 - share, options.select)
    select = select_by_macs if kind == "macs" else select_by_params
    return select(graph, groups, scores, min(share, 1.0), options.select)


def _automatic(
    graph: Graph,
    options: PruneOptions,
    score: Callable[[Graph], float],
    drop: float | None,
    samples: Samples,
    progress: Progress,
) -> tuple[Graph, Sensitivity]:
    groups = find_groups(graph, options.protect)
    scores = _scores(graph, groups, options, samples)
    scan = scan_sensitivity(
        graph, groups, scores, score, options.select, lambda i, n: progress("scanning the groups", i, n)
    )
    allowed = options.allowed_drop if drop is None else drop
    removed = choose_ratios(graph, groups, scores, scan, score, allowed, options.select)
    return remove(graph, groups, removed), scan


def _until_it_fits(
    graph: Graph,
    goal: PruneGoal,
    options: PruneOptions,
    fits: Callable[[Graph], bool] | None,
    samples: Samples,
) -> Graph:
    """The largest share of the MACs whose int8 network keeps the limit, by bisection."""
    if fits is None:
        raise DeployError(
            f"a goal in {goal.kind} needs a target", where="--target", hint="name a core or board"
        )
    if fits(graph):
        return graph
    groups = find_groups(graph, options.protect)
    scores = _scores(graph, groups, options, samples)
    low, high = 0.0, 1.0
    best: Graph | None = None
    for _ in range(_SEARCH_STEPS):
        middle = (low + high) / 2
        try:
            candidate = remove(graph, groups, select_by_macs(graph, groups, scores, middle, options.select))
        except DeployError:
            # Below the smallest network that the options allow.
            low = middle
            continue
        if fits(candidate):
            best, low = candidate, middle
        else:
            high = middle
    if best is None:
        raise DeployError(
            f"even the smallest allowed network exceeds {goal.kind} {goal.amount:,.0f} B",
            where="--prune",
            hint="raise the limit, or lower --prune-divisor",
        )
    return best
