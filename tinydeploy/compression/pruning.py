"""Pruning towards a goal: the steps of importance, selection, removal and training in between."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from tinydeploy.data import Samples
from tinydeploy.errors import DeployError
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import Array
from tinydeploy.measure import Progress, silent
from tinydeploy.prune import (
    Groups,
    find_groups,
    importance,
    remove,
    select_by_macs,
    select_by_params,
    select_by_ratio,
    select_over_all,
)
from tinydeploy.prune.cost import Cost, cost_of
from tinydeploy.prune.goal import PruneGoal
from tinydeploy.prune.groups import kept_channels
from tinydeploy.prune.measured import select_by_loss
from tinydeploy.prune.names import find_layers, group_ratios
from tinydeploy.prune.residual import residual_sums
from tinydeploy.prune.search import fewest_removed
from tinydeploy.prune.select import SelectOptions, removal_order
from tinydeploy.prune.sensitivity import Sensitivity, choose_ratios, scan_sensitivity

Train = Callable[[Graph, int], Graph]
"""Fine-tunes a graph for a number of epochs."""

_TAYLOR_BATCH = 16
"""Small: over many samples the gradients of a trained network cancel out."""


@dataclass(frozen=True)
class PruneOptions:
    """How to prune.

    Attributes:
        importance: a name of `prune.IMPORTANCES`.
        protect: layers that keep all their channels.
        protect_residual: channels that an addition shares stay; only the inside of residual blocks is pruned
            (Li et al. 2017, "Pruning filters for efficient ConvNets", section 3.3, prunes them like that).
        steps: 1 prunes at once; more prune a part each and fine-tune `step_epochs` in between.
        ratios: ratios by layer; they win over the goal for the groups that these layers write.
        scan_samples: samples of the sensitivity scan, of Taylor importance and of recalibration.
        allowed_drop: of `auto` before any fine-tuning, where no --max-accuracy-drop is given.
    """

    importance: str = "l2"
    select: SelectOptions = field(default_factory=SelectOptions)
    protect: tuple[str, ...] = ()
    protect_residual: bool = False
    steps: int = 1
    step_epochs: int = 1
    ratios: Mapping[str, float] = field(default_factory=dict)
    scan_samples: int = 512
    allowed_drop: float = 0.01
    seed: int = 0


class Recalibration(Protocol):
    """Gives what is left of a graph the statistics that it had."""

    def mend(self, smaller: Graph, kept: Mapping[str, Array]) -> Graph:
        """The mended graph; `kept` are the channels that stay of each value."""

    def loss(self, smaller: Graph, kept: Mapping[str, Array]) -> float:
        """The loss of the mended graph."""


@dataclass(frozen=True)
class Training:
    """What happens between removals.

    Attributes:
        samples: for importance.
    """

    train: Train
    recalibration: Callable[[Graph], Recalibration] | None
    samples: Samples


@dataclass(frozen=True)
class Limit:
    """A goal in flash, RAM or latency.

    Attributes:
        allowed: the most that the int8 network may take, in the goal's unit.
        before: what the unpruned one takes.
    """

    allowed: float
    before: float


@dataclass(frozen=True)
class Pruned:
    """The smaller graph.

    Attributes:
        widths: name of each group, and its channels before and after; empty where nothing was asked for.
        limit: of a goal that was measured.
    """

    graph: Graph
    widths: tuple[tuple[str, int, int], ...]
    sensitivity: Sensitivity | None = None
    limit: Limit | None = None


def prune(
    graph: Graph,
    goal: PruneGoal,
    options: PruneOptions,
    *,
    score: Callable[[Graph], float],
    measure: Cost | None,
    train: Train,
    drop: float | None,
    samples: Samples,
    recalibration: Callable[[Graph], Recalibration] | None = None,
    progress: Progress = silent,
) -> Pruned:
    """Removes channels until the goal is reached.

    Args:
        score: accuracy of a candidate, for `auto`.
        measure: what a candidate takes on the target once it is int8, for a goal that is measured.
        drop: accuracy that `auto` may give away before fine-tuning.
        recalibration: of a graph, to be given to what is left of it after each removal.

    Raises:
        DeployError: the goal cannot be reached or measured, or a layer that is named does not exist.
    """
    if goal.kind == "none" and not options.ratios:
        return Pruned(graph, ())
    options = replace(options, protect=_protected(graph, options))
    groups = find_groups(graph, options.protect)
    before = {g.name: len(g.channels) for g in groups.groups}
    if not before:
        raise DeployError("has no channels that may be removed", where=graph.source, hint="leave --prune out")
    ratios = group_ratios(graph, groups, options.ratios, "--prune-layer")
    options = replace(options, select=replace(options.select, ratios=ratios))
    scan, limit = None, None
    if goal.kind == "auto":
        result, scan = _automatic(graph, groups, options, score, drop, samples, progress)
    elif goal.is_measured:
        result, limit = _until_it_fits(graph, groups, goal, options, measure, samples, progress)
    else:
        result = _in_steps(graph, goal, options, Training(train, recalibration, samples), progress)
    if (options.steps > 1 or recalibration is not None) and (goal.kind == "auto" or goal.is_measured):
        # The widths are decided; the way there has its steps, with training and statistics in between.
        after = {name: 1.0 - _width(result, name) / size for name, size in before.items()}
        decided = replace(options, select=replace(options.select, ratios=after))
        given = Training(train, recalibration, samples)
        result = _in_steps(graph, PruneGoal("ratio"), decided, given, progress)
    widths = tuple((name, size, _width(result, name)) for name, size in before.items())
    return Pruned(result, widths, scan, limit)


def _protected(graph: Graph, options: PruneOptions) -> tuple[str, ...]:
    """Names of the layers whose channels stay."""
    named = find_layers(graph, options.protect, "--protect")
    if not options.protect_residual:
        return named
    return (*named, *(n.name for n in residual_sums(graph)))


def _width(graph: Graph, layer: str) -> int:
    node = next(n for n in graph.nodes if n.name == layer)
    return graph.value(node.outputs[0]).shape[-1]


def _scores(graph: Graph, groups: Groups, options: PruneOptions, samples: Samples) -> dict[int, float]:
    gradients: Iterable[dict[str, Array]] | None = None
    if options.importance == "taylor":
        from tinydeploy.finetune import batch_gradients  # noqa: PLC0415

        if samples.labels is None:
            raise DeployError("taylor importance needs labels", where="--data", hint="add an array y")
        few = options.scan_samples
        x, y = samples.inputs[0][:few], samples.labels[:few]
        gradients = batch_gradients(graph, x, y, batch_size=_TAYLOR_BATCH)
    return importance(graph, groups, options.importance, gradients=gradients, seed=options.seed)


def _in_steps(
    graph: Graph, goal: PruneGoal, options: PruneOptions, training: Training, progress: Progress
) -> Graph:
    """A ratio or a share of MACs or parameters, in equal factors a step."""
    sizes = {g.name: len(g.channels) for g in find_groups(graph, options.protect).groups}
    result = graph
    for step in range(options.steps):
        groups = find_groups(result, options.protect)
        scores = _scores(result, groups, options, training.samples)
        part = (step + 1) / options.steps
        recalibration = None if training.recalibration is None else training.recalibration(result)
        if goal.kind in ("macs", "params"):
            select = replace(options.select, ratios=_ratios_so_far(options, sizes, groups, part))
            limit = goal.amount**part * cost_of(goal.kind)(graph)
            removed = _by_cost(result, groups, scores, (goal.kind, limit), select, recalibration, progress)
        else:
            removed = _by_ratio(result, groups, scores, goal.amount, options, sizes, part)
        kept = kept_channels(groups, removed)
        result = remove(result, groups, removed)
        if recalibration is not None:
            result = recalibration.mend(result, kept)
        if step < options.steps - 1:
            result = training.train(result, options.step_epochs)
    return result


def _ratios_so_far(
    options: PruneOptions, sizes: Mapping[str, int], groups: Groups, part: float
) -> dict[str, float]:
    """Of the widths at the start, so that rounding in one step is made up for in the next."""
    now = {g.name: len(g.channels) for g in groups.groups}
    return {n: _ratio(sizes[n], now[n], r, part) for n, r in options.select.ratios.items()}


def _by_cost(
    graph: Graph,
    groups: Groups,
    scores: Mapping[int, float],
    goal: tuple[str, float],
    select: SelectOptions,
    recalibration: Recalibration | None,
    progress: Progress,
) -> frozenset[int]:
    """Removes channels until at most `goal` MACs or parameters are left."""
    kind, limit = goal
    cost = cost_of(kind)
    start = cost(graph)
    if select.scope != "measured":
        choose = select_by_macs if kind == "macs" else select_by_params
        return choose(graph, groups, scores, min(limit / start, 1.0), select)
    if recalibration is None:
        raise DeployError(
            "measuring the loss needs labels", where="--prune-scope measured", hint="add an array y to --data"
        )

    def shown(now: float) -> None:
        progress("measuring what each channel is worth", int(start - now), max(int(start - limit), 1))

    return select_by_loss(graph, groups, scores, limit, cost, recalibration.loss, select, shown)


def _by_ratio(
    graph: Graph,
    groups: Groups,
    scores: Mapping[int, float],
    amount: float,
    options: PruneOptions,
    sizes: Mapping[str, int],
    part: float,
) -> frozenset[int]:
    """Removes a fraction of all channels, or of each group's."""
    now = {g.name: len(g.channels) for g in groups.groups}
    ratios = _ratios_so_far(options, sizes, groups, part)
    select = replace(options.select, ratios=ratios)
    if select.scope == "measured":
        raise DeployError(
            "is for goals in macs and params", where="--prune-scope measured", hint="--prune macs=50%"
        )
    if select.scope == "global":
        free = [n for n in sizes if n not in ratios]
        total, left = sum(sizes[n] for n in free), sum(now[n] for n in free)
        ratio = _ratio(total, left, amount, part) if free else 0.0
        return select_over_all(graph, groups, scores, ratio, select)
    wanted = {n: _ratio(sizes[n], now[n], amount, part) for n in sizes}
    return select_by_ratio(groups, scores, wanted, select)


def _ratio(start: int, now: int, ratio: float, part: float) -> float:
    """What to remove of `now` channels so that, of `start` channels, `part` of the way to `ratio` is done."""
    if not 0.0 <= ratio < 1.0:
        raise DeployError(f"the pruning ratio {ratio} is not in [0, 1)", where="--prune")
    left: float = start * (1.0 - ratio) ** part
    return max(1.0 - left / now, 0.0)


def _automatic(
    graph: Graph,
    groups: Groups,
    options: PruneOptions,
    score: Callable[[Graph], float],
    drop: float | None,
    samples: Samples,
    progress: Progress,
) -> tuple[Graph, Sensitivity]:
    scores = _scores(graph, groups, options, samples)
    scan = scan_sensitivity(
        graph, groups, scores, score, options.select, lambda i, n: progress("scanning the groups", i, n)
    )
    allowed = options.allowed_drop if drop is None else drop
    removed = choose_ratios(graph, groups, scores, scan, score, allowed, options.select)
    return remove(graph, groups, removed), scan


def _until_it_fits(
    graph: Graph,
    groups: Groups,
    goal: PruneGoal,
    options: PruneOptions,
    measure: Cost | None,
    samples: Samples,
    progress: Progress,
) -> tuple[Graph, Limit]:
    """The largest network, in the order of importance, that keeps the limit on the target."""
    if measure is None:
        raise DeployError(
            f"a goal in {goal.kind} needs a target", where="--target", hint="name a core or board"
        )
    progress("measuring on the target", 0, 1)
    before = measure(graph)
    limit = Limit(goal.amount * before if goal.relative else goal.amount, before)
    scores = _scores(graph, groups, options, samples)
    proxy = cost_of(goal.kind)
    order = removal_order(graph, groups, scores, options.select, proxy)
    if before <= limit.allowed:
        return remove(graph, groups, order.fixed), limit
    most = len(order.blocks).bit_length() + 1
    found = fewest_removed(
        graph,
        groups,
        order,
        measure,
        proxy,
        limit.allowed,
        before,
        lambda done: progress("measuring on the target", min(done, most), most),
    )
    if found.removed is None:
        raise DeployError(
            f"even the smallest allowed network takes {found.measured:,.6g} of {limit.allowed:,.6g}"
            f" ({goal.kind})",
            where="--prune",
            hint="allow more, name a larger target, or lower --prune-divisor",
        )
    return remove(graph, groups, found.removed), limit
