"""Which kernel computes each layer: fast ones, as far as the goal allows RAM and flash for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tinydeploy.ir.graph import Graph
from tinydeploy.ir.verify import site_of
from tinydeploy.plan.arena import plan_memory
from tinydeploy.plan.kernels import PORTABLE, KernelChoice, Kernels, candidates

_MOST_NODES = 500


@dataclass(frozen=True)
class Goal:
    """What --optimize asks for.

    Attributes:
        fast: kernels other than the portable ones are wanted.
        spare_bytes: by how much the arena may exceed that of the portable kernels; None where the arena is
            to be as small as the kernels with the least working memory make it.
        cycles_a_byte: cycles that each further byte of flash must save.
    """

    fast: bool = True
    spare_bytes: int | None = 4096
    cycles_a_byte: float = 0.0


GOALS = {
    "latency": Goal(),
    "balanced": Goal(cycles_a_byte=100.0),
    "flash": Goal(fast=False),
    "ram": Goal(spare_bytes=None, cycles_a_byte=100.0),
}
"""What each --optimize means here."""


def select_kernels(graph: Graph, *, has_dsp: bool, goal: Goal, narrow: bool = False) -> Kernels:
    """The kernel of every layer.

    The fastest kernels are taken where the arena of all together keeps the goal. Otherwise each layer begins
    with the kernel that needs the least working memory, and the layers that gain most come first.
    """
    # Each layer costs a plan; a graph of that size has no place on a microcontroller anyway.
    if not (has_dsp or narrow) or not goal.fast or len(graph.nodes) > _MOST_NODES:
        return {n.name: candidates(n.op, site_of(graph, n), has_dsp=False)[0] for n in graph.nodes}
    options = {
        n.name: candidates(n.op, site_of(graph, n), has_dsp=has_dsp, narrow=narrow) for n in graph.nodes
    }
    found = {name: _worth(each, goal) for name, each in options.items()}
    fastest = {name: options[0] for name, options in found.items()}
    if goal.spare_bytes is not None:
        base = {name: options[-1] for name, options in found.items()}
        limit = plan_memory(graph, base).arena_bytes + goal.spare_bytes
    else:
        # The portable kernels need little memory, but cannot write over what they read.
        lean = {name: min(_fast(options), key=_memory) for name, options in found.items()}
        plain = {name: options[-1] for name, options in found.items()}
        base = min((fastest, lean, plain), key=lambda k: plan_memory(graph, k).arena_bytes)
        limit = plan_memory(graph, base).arena_bytes
    if plan_memory(graph, fastest).arena_bytes <= limit:
        return _explained(found, fastest)
    chosen = dict(base)
    for name in sorted(found, key=lambda n: fastest[n].cycles - base[n].cycles):
        for option in found[name]:
            if option is chosen[name]:
                break
            trial = {**chosen, name: option}
            if plan_memory(graph, trial).arena_bytes <= limit:
                chosen = trial
                break
    return _explained(found, chosen)


def _worth(options: Sequence[KernelChoice], goal: Goal) -> tuple[KernelChoice, ...]:
    """Those whose further flash pays against the fastest one that needs none."""
    plain = next(o for o in options if o.more_flash <= 0)
    return tuple(
        o
        for o in options
        if o.more_flash <= 0 or plain.cycles - o.cycles >= goal.cycles_a_byte * o.more_flash
    )


def _fast(options: Sequence[KernelChoice]) -> Sequence[KernelChoice]:
    return [o for o in options if o.name != PORTABLE] or options


def _memory(option: KernelChoice) -> int:
    return option.scratch_bytes + (0 if option.in_place else option.lead or 0)


def _explained(found: dict[str, tuple[KernelChoice, ...]], chosen: dict[str, KernelChoice]) -> Kernels:
    return {name: replace(choice, why=_why(found[name], choice)) for name, choice in chosen.items()}


def _why(options: Sequence[KernelChoice], choice: KernelChoice) -> str:
    faster = [o for o in options if o.cycles < choice.cycles]
    if not faster:
        return (
            "the fastest of " + ", ".join(_label(o) for o in options) if len(options) > 1 else "the only one"
        )
    return "for want of memory, not " + ", ".join(_label(o) for o in faster)


def _label(o: KernelChoice) -> str:
    return f"{o.name}{f' by {o.block}' if o.block else ''} ({o.cycles:,} cycles, {o.scratch_bytes:,} B)"
