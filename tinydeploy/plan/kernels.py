"""Which kernel computes a layer, by the target's core: the choice, and the scratch that it asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tinydeploy.ir.graph import Graph
from tinydeploy.ir.op import Op, Site
from tinydeploy.ir.verify import site_of
from tinydeploy.plan import dsp
from tinydeploy.plan.scratch import scratch_bytes

PORTABLE = "portable"


@dataclass(frozen=True)
class KernelChoice:
    """The kernel of one layer.

    Attributes:
        name: `portable`, or the name of a faster kernel that is bit-exact to it.
        scratch_bytes: working memory beside input and output.
        in_place: the output may be the place of an input of the same size that dies here.
        lead: the output may lie over an input that dies here where it starts at least so many bytes before
            it: it is then never ahead of what is still to be read. None where it may not overlap.
    """

    name: str
    scratch_bytes: int = 0
    in_place: bool = False
    lead: int | None = None


Kernels = Mapping[str, KernelChoice]
"""The kernel of each layer, by the name of its node."""


def choose_kernel(op: Op, site: Site, *, has_dsp: bool) -> KernelChoice:
    """The kernel of one layer on a core with or without the DSP extension."""
    fast = dsp.kernel_for(op, site) if has_dsp else None
    if fast is not None:
        return KernelChoice(fast.name, fast.scratch_bytes, fast.in_place or op.in_place, fast.lead)
    return KernelChoice(PORTABLE, scratch_bytes(op, site), op.in_place)


def choose_kernels(graph: Graph, *, has_dsp: bool = False) -> Kernels:
    """The kernel of every layer of an integer graph."""
    return {n.name: choose_kernel(n.op, site_of(graph, n), has_dsp=has_dsp) for n in graph.nodes}
