"""The smallest cut in channels that makes a model fit: searched on the plan, confirmed by a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tinydeploy.advice.change import Advice, Trial, Width, effect_text
from tinydeploy.advice.predict import Predictor
from tinydeploy.errors import DeployError
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.verify import graph_macs
from tinydeploy.measure import Measurement
from tinydeploy.plan.lifetime import buffers_above
from tinydeploy.prune import Group, Groups, find_groups, importance, remove
from tinydeploy.prune.select import SelectOptions
from tinydeploy.verdict import Verdict, amount_text

_STEPS = 32
"""Cuts are tried in steps of a 32nd of a group."""

_CONFIRMED = 3
_ATTEMPTS = 3
_MOST_NODES = 500


@dataclass(frozen=True)
class Cut:
    """Channels to remove.

    Attributes:
        ratio: of each group, before it is rounded to the divisor.
        share: of all prunable channels of the network.
    """

    removed: frozenset[int]
    graph: Graph
    widths: tuple[tuple[Group, int], ...]
    ratio: float
    share: float


class Cutter:
    """Makes cuts of one graph, the channels with the smallest weights first."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.groups: Groups = find_groups(graph)
        self._scores = importance(graph, self.groups, "l2")
        self._options = SelectOptions()
        self._total = sum(len(group.channels) for group in self.groups.groups)

    def cut(self, groups: Sequence[Group], step: int) -> Cut | None:
        """Removes step / 32 of each group, in multiples of the divisor; None where nothing goes."""
        removed: set[int] = set()
        widths = []
        for group in groups:
            size = len(group.channels)
            keep = self._keep(size, step)
            ranked = sorted((c.root for c in group.channels), key=lambda r: (self._scores[r], r))
            removed.update(ranked[: size - keep])
            widths.append((group, keep))
        if not removed:
            return None
        gone = frozenset(removed)
        try:
            smaller = remove(self.graph, self.groups, gone)
        except DeployError:
            return None
        return Cut(gone, smaller, tuple(widths), step / _STEPS, len(gone) / self._total)

    def _keep(self, size: int, step: int) -> int:
        divisor, least = self._options.divisor, size * self._options.minimum
        wanted = max(size * (_STEPS - step) / _STEPS, least)
        return min(size, max(divisor, -(-int(-(-wanted // 1)) // divisor) * divisor))


def prune_to_fit(trial: Trial, before: Measurement, found: Verdict) -> Iterator[Advice]:
    """Cuts that make the model fit, as built and run; the fewest channels first.

    At most one cut of one group alone, or, where none suffices, of the groups that are live at the peak of
    the arena together; and one of the same share of all groups, which is milder to each.
    """
    if before.sizes is None or len(trial.job.graph.nodes) > _MOST_NODES:
        return
    cutter = Cutter(trial.job.graph)
    everything = cutter.groups.groups
    candidates = _at_the_peak(cutter, trial, before, found)
    predictor = Predictor(trial, before)

    def best(together: Sequence[Sequence[Group]]) -> Advice | None:
        cuts = [cut for groups in together if (cut := _smallest(cutter, groups, predictor)) is not None]
        few = sorted(cuts, key=lambda c: c.share)[:_CONFIRMED]
        return next((a for cut in few if (a := _confirm(cutter, cut, predictor, found))), None)

    some = best([[g] for g in candidates])
    if some is None and len(candidates) < len(everything):
        some = best([candidates])
    even = best([everything])
    if some is not None and even is not None and even.widths == some.widths:
        even = None
    made = [advice for advice in (some, even) if advice is not None]
    yield from sorted(made, key=lambda a: sum(w.before - w.after for w in a.widths))


def smallest_needs(trial: Trial, before: Measurement) -> str:
    """What is left where everything prunable is cut as far as it goes, in words; "" where nothing is."""
    if before.sizes is None or len(trial.job.graph.nodes) > _MOST_NODES:
        return ""
    cutter = Cutter(trial.job.graph)
    cut = cutter.cut(cutter.groups.groups, _STEPS)
    needs = None if cut is None else Predictor(trial, before).needs(cut.graph)
    return ", ".join(
        f"{n.resource} {amount_text(n.resource, n.amount)} of {amount_text(n.resource, n.limit)}"
        for n in needs or ()
        if n.over > 0 and n.amount is not None
    )


def _at_the_peak(cutter: Cutter, trial: Trial, before: Measurement, found: Verdict) -> Sequence[Group]:
    """The groups whose channels are live where the arena is too full; all where more than RAM is over."""
    everything = cutter.groups.groups
    if [need.resource for need in found.over] != ["RAM"]:
        return everything
    plan = before.project.plan
    limit = plan.arena_bytes - int(found.over[0].over)
    nodes = len(before.project.model.graph.nodes)
    live = {name for buffer in buffers_above(plan, nodes, limit) for name in buffer.members}
    roots = {int(r) for name in live & cutter.groups.roots.keys() for r in cutter.groups.roots[name]}
    return tuple(g for g in everything if any(c.root in roots for c in g.channels))


def _smallest(cutter: Cutter, groups: Sequence[Group], predictor: Predictor) -> Cut | None:
    """The smallest step of a cut of these groups that is predicted to fit; a bisection."""
    low, high, best = 0, _STEPS, None
    last = cutter.cut(groups, _STEPS) if groups else None
    if last is None or not predictor.fits(last.graph):
        return None
    while low < high:
        middle = (low + high) // 2
        cut = cutter.cut(groups, middle)
        if cut is not None and predictor.fits(cut.graph):
            best, high = cut, middle
        else:
            low = middle + 1
    return best or last


def _confirm(cutter: Cutter, cut: Cut, predictor: Predictor, found: Verdict) -> Advice | None:
    """Builds and runs a cut; where it is not enough, learns by how much and cuts deeper."""
    trial = predictor.trial
    groups = [group for group, _ in cut.widths]
    for _ in range(_ATTEMPTS):
        try:
            after = trial.judge(trial.measure(graph=cut.graph))
        except DeployError:
            return None
        if after.fits:
            return _advice(cut, predictor.before, found, after, trial)
        predictor = predictor.corrected(cut.graph, after)
        deeper = _smallest(cutter, groups, predictor)
        if deeper is None or deeper.removed == cut.removed:
            return None
        cut = deeper
    return None


def _advice(cut: Cut, before: Measurement, found: Verdict, after: Verdict, trial: Trial) -> Advice:
    graph = trial.job.graph
    left = graph_macs(cut.graph) / max(graph_macs(graph), 1)
    widths = tuple(
        Width(_layer_names(group, before), len(group.channels), keep) for group, keep in cut.widths
    )
    if len(widths) <= 2:
        what = " and ".join(_width_text(w) for w in widths)
    else:
        what = f"{100 * cut.share:.0f} % of all prunable channels, in {len(widths)} groups"
    text = f"prune {what}: {effect_text(found, after)}; {100 * left:.0f} % of the MACs stay, train again"
    return Advice("prune", True, text, _command(trial, found, cut), after, left, widths)


def _width_text(w: Width) -> str:
    layers = f"layer{'s' if len(w.layers) > 1 else ''} {' and '.join(w.layers)}"
    return f"{layers} from {w.before} to {w.after} channels ({100 * (1 - w.after / w.before):.0f} %)"


def _layer_names(group: Group, m: Measurement) -> tuple[str, ...]:
    """`3 conv_2d`: the number and op by which the profile's tables name a layer."""
    layers = {layer.node.name: layer for layer in m.project.model.layers}
    found = [layers[name] for name in group.layers if name in layers]
    return tuple(f"{layer.index} {layer.node.op.kind.lower()}" for layer in found)


def _command(trial: Trial, found: Verdict, cut: Cut) -> str:
    """How `compress` prunes the float network: by the same share of all layers, or to the same limit."""
    over = found.over[0]
    if len(cut.widths) == len(find_groups(trial.job.graph).groups):
        goal = f"{cut.ratio:g}"
    elif over.resource == "latency":
        goal = f"latency={over.limit:g}ms"
    else:
        goal = f"{over.resource.lower()}={over.limit:.0f}"
    return f"tinydeploy compress FLOAT_MODEL --data DATA --prune {goal} --target {trial.target.name} -o OUT"
