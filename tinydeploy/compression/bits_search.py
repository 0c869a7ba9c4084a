"""`compress --bits auto`: candidates measured, and the one that a loss or a budget allows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from tinydeploy.analysis.bits import stored_bits
from tinydeploy.compression.scoring import metric_of, value_of
from tinydeploy.data import Samples
from tinydeploy.errors import DeployError
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import Array
from tinydeploy.measure import Progress
from tinydeploy.precision.allocate import least_bits
from tinydeploy.precision.measures import LEAST, MOST, Measures, Wanted, measure, weights_of
from tinydeploy.precision.mixtures import Mixture, candidates
from tinydeploy.prune.goal import PruneGoal, parse_goal
from tinydeploy.quantize import QuantizeOptions, quantize
from tinydeploy.quantize.recipe import Recipe
from tinydeploy.target_cost import TargetCost

AUTO = "auto"

SAMPLES_MAX = 2000
"""That judge one candidate."""


@dataclass(frozen=True)
class Measured:
    """One mixture, quantized without training.

    Attributes:
        bits: of weights, by layer.
        activation_bits: by tensor, of those whose bits can be chosen.
        mean_bits: of a weight.
        mean_activation_bits: of an activation, inputs and outputs of the network included.
        weights_bytes: all constants as they are stored.
        held_bits: of all weights and all activations together, each tensor counted once.
        value: of the metric, larger is better: accuracy, or minus the error.
        cost: in the budget's unit, of those that were measured.
        front: no smaller one has as good a value; see `Found.by_held_bits` for what is small.
    """

    source: str
    bits: tuple[tuple[str, int], ...]
    activation_bits: tuple[tuple[str, int], ...]
    mean_bits: float
    mean_activation_bits: float
    weights_bytes: int
    held_bits: int
    value: float
    cost: float | None = None
    front: bool = False
    chosen: bool = False

    def to_json(self) -> dict[str, object]:
        return asdict(self) | {"bits": dict(self.bits), "activation_bits": dict(self.activation_bits)}


@dataclass(frozen=True)
class Budget:
    """What the network may take on the target.

    Attributes:
        cost: measures an integer graph.
        allowed: in its unit; None for a share of what eight bits take.
        share: of that, where `allowed` is None.
    """

    cost: TargetCost
    allowed: float | None
    share: float = 1.0


@dataclass(frozen=True)
class Search:
    """What to search, and by what: a loss or a budget at least.

    Attributes:
        drop: largest loss of value against the float network, before training.
        budget: decides where there is one: the mixture of the best value within it is taken, and what it
            loses is for the caller to check.
        wanted: the bits that are searched.
    """

    drop: float | None = None
    budget: Budget | None = None
    wanted: Wanted = field(default_factory=Wanted)


@dataclass(frozen=True)
class Bound:
    """What the noise gains of the searched tensors guarantee, with bits that can be stored.

    Attributes:
        loss: that is allowed, a fraction.
        uniform: the least bits that are the same for all and lose no more; None where eight are too few.
        base: the least bits of the tensor with the least gain, the others having their offsets; or None.
    """

    loss: float
    uniform: int | None
    base: int | None


@dataclass(frozen=True)
class Found:
    """The result.

    Attributes:
        table: all candidates, the smallest first.
        by_held_bits: whether small is what has few bits in weights and activations, since those of
            activations are searched; else what has few bytes of constants.
        unit: of their costs.
        bound: for the loss that was allowed, if one was.
    """

    recipe: Recipe
    table: tuple[Measured, ...]
    by_held_bits: bool = False
    unit: str = ""
    bound: Bound | None = None


def wanted_bits(bits: str | None) -> Wanted | None:
    """What `--bits` leaves to the search: `auto`, `auto:A`, `W:auto` or `auto:auto`; None for numbers alone.

    Without A activations have eight bits.

    Raises:
        DeployError: neither auto nor a number of bits that there is.
    """
    first, colon, second = (bits or "").partition(":")
    parts = (first, second if colon else str(MOST))
    if AUTO not in parts:
        return None
    digits = [str(b) for b in range(LEAST, MOST + 1)]
    if not all(p == AUTO or p in digits for p in parts):
        raise DeployError(
            f"{(bits or '')[:80]!r} is not possible",
            where="--bits",
            hint="auto, or W:A with auto or a number from 2 to 8 for each",
        )
    weights, activations = (None if p == AUTO else int(p) for p in parts)
    return Wanted(weights, activations)


def bits_option(bits: str | None, drop: float | None, budget: str | None) -> tuple[Wanted | None, PruneGoal]:
    """Which bits are searched, and the goal of the budget.

    Raises:
        DeployError: auto with nothing to judge by, a budget without auto, or one that is not measured.
    """
    auto = wanted_bits(bits)
    if budget is not None and auto is None:
        raise DeployError("belongs to --bits auto", where="--bits-budget", hint="add --bits auto")
    if auto is not None and budget is None and drop is None:
        raise DeployError(
            "needs to know what may be lost or taken",
            where="--bits auto",
            hint="add --max-accuracy-drop 0.01, or --bits-budget flash=64k",
        )
    goal = parse_goal(budget)
    if budget is not None and not goal.is_measured:
        raise DeployError(
            f"{budget!r} is no budget of the target",
            where="--bits-budget",
            hint="flash=64k, ram=24k, latency=20ms, or a share of what eight bits take, such as flash=60%",
        )
    return auto, goal


def search_bits(
    graph: Graph,
    inputs: Sequence[Array],
    labels: Array | None,
    search: Search,
    judged_by: Samples,
    options: QuantizeOptions,
    progress: Progress,
) -> Found:
    """Measures every candidate and takes the best that is allowed.

    Under a loss alone that is the smallest; where none loses so little, that of the best value, and the
    caller's own check of the loss says no.

    Args:
        graph: float.
        inputs: calibration samples; gradients and noise come from the first of them.
        labels: of these, or None.
        judged_by: what candidates are measured on, its first SAMPLES_MAX; real units, with labels. Data that
            chose the bits flatter them, so an honest figure takes others.

    Raises:
        DeployError: no candidate is within the budget, the network decides nothing, or there are no labels.
        MissingExtraError: PyTorch is not installed.
    """
    score = _scorer(graph, judged_by)
    measures = measure(graph, inputs, labels, search.wanted)
    mixtures = candidates(measures)
    graphs: list[Graph] = []
    table: list[Measured] = []
    for i, mixture in enumerate(mixtures):
        progress(f"bits by layer: {mixture.source}", i, len(mixtures))
        made = quantize(graph, inputs, replace(options, recipe=mixture.recipe))
        graphs.append(made)
        table.append(_measured(mixture, made, weights_of(graph), score(made)))
    held = search.wanted.activations is None
    order = sorted(range(len(table)), key=lambda i: (_size(table[i], held), -table[i].value))
    table, graphs, mixtures = (
        [table[i] for i in order],
        [graphs[i] for i in order],
        tuple(mixtures[i] for i in order),
    )
    table = with_front(table)
    if search.budget is not None:
        table, place = _within(table, graphs, search.budget, progress)
    else:
        assert search.drop is not None
        place = smallest(table, score(graph) - search.drop)
    table[place] = replace(table[place], chosen=True)
    unit = "" if search.budget is None else search.budget.cost.unit
    return Found(mixtures[place].recipe, tuple(table), held, unit, bound_of(measures, search.drop))


def _measured(mixture: Mixture, made: Graph, sizes: Mapping[str, int], value: float) -> Measured:
    """The entry of a mixture with its integer graph."""
    flowing = [v for v in made.values.values() if not v.is_constant]
    activation_bits = sum(v.elements * stored_bits(v) for v in flowing)
    weight_bits = sum(count * mixture.bits[name] for name, count in sizes.items())
    return Measured(
        mixture.source,
        tuple(mixture.bits.items()),
        tuple((name, stored_bits(made.value(name))) for name in mixture.activations),
        mixture.mean_bits(sizes),
        activation_bits / max(sum(v.elements for v in flowing), 1),
        sum(v.bytes for v in made.constants()),
        weight_bits + activation_bits,
        value,
    )


def _size(entry: Measured, held: bool) -> int:
    return entry.held_bits if held else entry.weights_bytes


def bound_of(measures: Measures, drop: float | None) -> Bound | None:
    """What the noise gains guarantee for a loss, if one is allowed."""
    if drop is None:
        return None
    uniform, mixed = (
        least_bits(measures.gains, drop, per_tensor=p, least=LEAST, most=MOST) for p in (False, True)
    )
    return Bound(drop, None if uniform is None else uniform.base, None if mixed is None else mixed.base)


def _scorer(graph: Graph, samples: Samples) -> Callable[[Graph], float]:
    """Of a float or integer graph; larger is better."""
    if samples.labels is None:
        raise DeployError("--bits auto needs labels", where="--data", hint="add an array y")
    few = Samples(tuple(x[:SAMPLES_MAX] for x in samples.inputs), samples.labels[:SAMPLES_MAX], ())
    where = graph.source or graph.name
    sign = 1.0 if metric_of(graph, few, where) == "accuracy" else -1.0
    return lambda candidate: sign * (value_of(candidate, few, where) or 0.0)


def with_front(table: Sequence[Measured]) -> list[Measured]:
    """Marks the Pareto front of a table that is sorted by size, then falling value."""
    best, marked = -float("inf"), []
    for entry in table:
        marked.append(replace(entry, front=entry.value > best))
        best = max(best, entry.value)
    return marked


def smallest(table: Sequence[Measured], least: float) -> int:
    """The first of a sorted table with a value of at least `least`; else the one of the best value."""
    for place, entry in enumerate(table):
        if entry.value >= least - 1e-12:
            return place
    return max(range(len(table)), key=lambda i: table[i].value)


def _within(
    table: list[Measured], graphs: Sequence[Graph], budget: Budget, progress: Progress
) -> tuple[list[Measured], int]:
    """Costs of the front, and the place of the best value within the budget."""
    front = [i for i, entry in enumerate(table) if entry.front]
    for done, i in enumerate(front):
        progress(f"bits by layer: {budget.cost.kind} on {budget.cost.target}", done, len(front))
        table[i] = replace(table[i], cost=budget.cost(graphs[i]))
    allowed = budget.allowed
    if allowed is None:
        eight = max(range(len(table)), key=lambda i: table[i].held_bits)
        cost = table[eight].cost
        if cost is None:
            cost = budget.cost(graphs[eight])
            table[eight] = replace(table[eight], cost=cost)
        allowed = budget.share * cost
    fit = [i for i in front if (table[i].cost or 0.0) <= allowed]
    if not fit:
        least = min(table[i].cost or 0.0 for i in front)
        raise DeployError(
            f"no mixture of bits takes at most {allowed:,.0f} {budget.cost.unit} of {budget.cost.kind};"
            f" the least is {least:,.0f}",
            where="--bits-budget",
            hint="allow more, or prune first: --prune",
        )
    return table, max(fit, key=lambda i: table[i].value)
