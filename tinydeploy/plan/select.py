"""Which kernel computes each layer: fast ones, as far as the goal allows RAM and flash for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tinydeploy.ir.graph import Graph
from tinydeploy.ir.verify import site_of
from tinydeploy.plan.arena import plan_memory
from tinydeploy.plan.kernels import PORTABLE, KernelChoice, Kernels, candidates
from tinydeploy.plan.measured import MeasuredCosts, layer_key

_MOST_NODES = 500


@dataclass(frozen=True)
class Goal:
    """What --optimize asks for.

    Attributes:
        fast: kernels other than the portable ones are wanted; where costs were measured, the smallest ones
            are taken in place of the portable ones.
        spare_bytes: by how much the arena may exceed that of the portable kernels; None where the arena is
            to be as small as the kernels with the least working memory make it.
        cycles_a_byte: cycles that each further byte of flash must save.
        any_shape: layers of different shapes may share one body of their kernel, which costs cycles.
    """

    fast: bool = True
    spare_bytes: int | None = 4096
    cycles_a_byte: float = 0.0
    any_shape: bool = False


GOALS = {
    "latency": Goal(),
    "balanced": Goal(cycles_a_byte=100.0),
    "flash": Goal(fast=False, any_shape=True),
    "ram": Goal(spare_bytes=None, cycles_a_byte=100.0),
}
"""What each --optimize means here."""


Options = Mapping[str, tuple[KernelChoice, ...]]
"""The candidates of each layer, by the name of its node."""


def select_kernels(
    graph: Graph, *, has_dsp: bool, goal: Goal, narrow: bool = False, costs: MeasuredCosts | None = None
) -> Kernels:
    """The kernel of every layer.

    The kernels that cost least are taken where the arena of all together keeps the goal. Otherwise each layer
    begins with the kernel that needs the least working memory, and the layers that gain most come first.

    Args:
        costs: what the candidates took on the core; the stored costs count for layers that are not in it.
    """
    # Each layer costs a plan; a graph of that size has no place on a microcontroller anyway.
    if len(graph.nodes) > _MOST_NODES or not (goal.fast or costs):
        has_dsp = narrow = False
    every = layer_options(graph, has_dsp=has_dsp, narrow=narrow, costs=costs)
    if not (has_dsp or narrow):
        return {name: options[0] for name, options in every.items()}
    if not goal.fast:
        smallest = {n: min(options, key=lambda o: (o.spends, o.takes)) for n, options in every.items()}
        return {n: replace(o, why=_why_small(every[n], o)) for n, o in smallest.items()}
    found = {name: _worth(options, goal) for name, options in every.items()}
    chosen = _within(graph, found, goal)
    return {n: replace(o, why=_why(every[n], found[n], o)) for n, o in chosen.items()}


def layer_options(
    graph: Graph, *, has_dsp: bool, narrow: bool = False, costs: MeasuredCosts | None = None
) -> Options:
    """The candidates of every layer, the fastest by stored cost first, with what was measured of them."""
    found = {}
    for node in graph.nodes:
        site = site_of(graph, node)
        options = candidates(node.op, site, has_dsp=has_dsp, narrow=narrow)
        if costs is not None:
            key = layer_key(node, site)
            taken = [costs.by_kernel.get((key, o.name, o.block)) for o in options]
            options = tuple(replace(o, measured=m) for o, m in zip(options, taken, strict=True))
        found[node.name] = options
    return found


def variant_kernels(graph: Graph, variant: int, *, has_dsp: bool, narrow: bool = False) -> Kernels:
    """Candidate number `variant` of every layer, or its last one: a model in which each can be measured."""
    every = layer_options(graph, has_dsp=has_dsp, narrow=narrow)
    return {n: options[min(variant, len(options) - 1)] for n, options in every.items()}


def _within(graph: Graph, found: Options, goal: Goal) -> Kernels:
    """The cheapest kernels whose arena keeps the goal."""
    fastest = {name: options[0] for name, options in found.items()}
    plain = {name: _portable(options) for name, options in found.items()}
    if goal.spare_bytes is not None:
        base = plain
        limit = plan_memory(graph, base).arena_bytes + goal.spare_bytes
    else:
        # The portable kernels need little memory, but cannot write over what they read.
        orders = (_scratch_first, _lead_first, _place_first)
        lean = [{n: min(_fast(options), key=key) for n, options in found.items()} for key in orders]
        base = min((fastest, *lean, plain), key=lambda k: plan_memory(graph, k).arena_bytes)
        limit = plan_memory(graph, base).arena_bytes
    if plan_memory(graph, fastest).arena_bytes <= limit:
        return fastest
    chosen = dict(base)
    for name in sorted(found, key=lambda n: fastest[n].takes - base[n].takes):
        for option in found[name]:
            if option is chosen[name]:
                break
            trial = {**chosen, name: option}
            if plan_memory(graph, trial).arena_bytes <= limit:
                chosen = trial
                break
    return chosen


def _worth(options: Sequence[KernelChoice], goal: Goal) -> tuple[KernelChoice, ...]:
    """Those whose further constants pay against the cheapest one that needs none; the cheapest first."""

    def cost(option: KernelChoice) -> float:
        return option.takes + goal.cycles_a_byte * option.spends

    plain = min(cost(o) for o in options if o.more_flash <= 0)
    return tuple(sorted((o for o in options if o.more_flash <= 0 or cost(o) <= plain), key=cost))


def _portable(options: Sequence[KernelChoice]) -> KernelChoice:
    return next(o for o in options if o.name == PORTABLE)


def _fast(options: Sequence[KernelChoice]) -> Sequence[KernelChoice]:
    return [o for o in options if o.name != PORTABLE] or options


def _memory(option: KernelChoice) -> int:
    return option.scratch_bytes + (0 if option.in_place else option.lead or 0)


# An output in the place of its input ties both to one offset; one ahead of it can be moved. Which of them
# makes the smaller arena is seen in the plan alone.
def _scratch_first(option: KernelChoice) -> tuple[bool, int]:
    return (option.in_place and option.lead is None, _memory(option))


def _lead_first(option: KernelChoice) -> tuple[bool, int]:
    return (option.lead is None, _memory(option))


def _place_first(option: KernelChoice) -> tuple[bool, int]:
    return (option.lead is None and not option.in_place, _memory(option))


def _why(every: Sequence[KernelChoice], worth: Sequence[KernelChoice], choice: KernelChoice) -> str:
    if len(every) == 1:
        return "the only one"
    reasons = []
    wanted = worth[: worth.index(choice)]
    if wanted:
        reasons.append("for want of memory, not " + ", ".join(_label(o) for o in wanted))
    dear = [o for o in every if o.takes < choice.takes and o not in wanted]
    if dear:
        reasons.append("for too few cycles a byte of flash, not " + ", ".join(_label(o) for o in dear))
    return "; ".join(reasons) or "the fastest of " + ", ".join(_label(o) for o in every)


def _why_small(every: Sequence[KernelChoice], choice: KernelChoice) -> str:
    if len(every) == 1:
        return "the only one"
    return "the smallest of " + ", ".join(_label(o) for o in every) + f": {_label(choice)}"


def _label(o: KernelChoice) -> str:
    flash = "" if o.measured is None else f", {o.measured.flash_bytes:,} B of flash"
    measured = "" if o.measured is None else " measured"
    block = f" by {o.block}" if o.block else ""
    return f"{o.name}{block} ({o.takes:,} cycles{measured}{flash}, {o.scratch_bytes:,} B)"
