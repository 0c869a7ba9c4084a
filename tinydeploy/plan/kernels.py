"""Which kernels can compute a layer on the target's core, and what each of them costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tinydeploy.ir.graph import Graph
from tinydeploy.ir.op import Op, Site
from tinydeploy.ir.verify import site_of
from tinydeploy.plan import dsp, trio
from tinydeploy.plan.cost import portable_cycles
from tinydeploy.plan.forms import Linear, formed_scratch, stored_form
from tinydeploy.plan.forms_dsp import formed_kernels
from tinydeploy.plan.forms_trio import formed_trios
from tinydeploy.plan.measured import KernelCost
from tinydeploy.plan.scratch import scratch_bytes
from tinydeploy.plan.signs import signs_kernels

PORTABLE = "portable"


@dataclass(frozen=True)
class KernelChoice:
    """A kernel of one layer.

    Attributes:
        name: `portable`, or the name of a faster kernel that is bit-exact to it.
        scratch_bytes: working memory beside input and output.
        in_place: the output may be the place of an input of the same size that dies here.
        lead: the output may lie over an input that dies here where it starts at least so many bytes before
            it: it is then never ahead of what is still to be read. None where it may not overlap.
        block: what the kernel makes at a time, where it has a choice: rows of a band, or tiles.
        cycles: stored estimate for a Cortex-M4 with a slow flash; only its order among kernels counts.
        more_flash: bytes of constants beyond those of the layer's smallest kernel.
        measured: what it took on the target's core, where that was asked for.
        why: what was chosen against what, for the manifest.
    """

    name: str
    scratch_bytes: int = 0
    in_place: bool = False
    lead: int | None = None
    block: int = 0
    cycles: int = 0
    more_flash: int = 0
    measured: KernelCost | None = None
    why: str = ""

    @property
    def takes(self) -> int:
        """Cycles, measured where they were."""
        return self.cycles if self.measured is None else self.measured.cycles

    @property
    def spends(self) -> int:
        """Bytes of flash that differ from kernel to kernel, measured where they were."""
        return self.more_flash if self.measured is None else self.measured.flash_bytes


Kernels = Mapping[str, KernelChoice]
"""The kernel of each layer, by the name of its node."""


def candidates(op: Op, site: Site, *, has_dsp: bool, narrow: bool = False) -> tuple[KernelChoice, ...]:
    """The kernels that can compute a layer, the fastest first; the portable one is the last.

    Args:
        has_dsp: the core has the DSP extension.
        narrow: it has not, and long multiplications are slow on it or missing.
    """
    if stored_form(op, site) is not None:
        assert isinstance(op, Linear)
        return _formed_candidates(op, site, has_dsp=has_dsp, narrow=narrow)
    fast = dsp.kernels_for(op, site) if has_dsp else trio.kernels_for(op, site) if narrow else []
    cycles = portable_cycles(op, site, narrow=narrow)
    portable = KernelChoice(PORTABLE, scratch_bytes(op, site), op.in_place, cycles=cycles)
    return (*_sorted(op, fast), portable)


def _formed_candidates(op: Linear, site: Site, *, has_dsp: bool, narrow: bool) -> tuple[KernelChoice, ...]:
    """The same for a layer whose weights are stored in fewer than eight bits."""
    fast = formed_kernels(op, site) if has_dsp else formed_trios(op, site) if narrow else []
    fast = [*signs_kernels(op, site), *fast]
    portable = KernelChoice(PORTABLE, formed_scratch(op, site), cycles=portable_cycles(op, site))
    return (*_sorted(op, fast), portable)


def _sorted(op: Op, fast: Sequence[dsp.DspKernel]) -> list[KernelChoice]:
    return [
        KernelChoice(
            k.name, k.scratch_bytes, k.in_place or op.in_place, k.lead, k.block, k.cycles, k.more_flash
        )
        for k in sorted(fast, key=lambda k: k.cycles)
    ]


def choose_kernels(graph: Graph, *, has_dsp: bool = False) -> Kernels:
    """The fastest kernel of every layer of an integer graph."""
    return {n.name: candidates(n.op, site_of(graph, n), has_dsp=has_dsp)[0] for n in graph.nodes}
