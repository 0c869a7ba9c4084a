"""Cycles of a model: one more run, under the hooks that the flash needs, checked against one without."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from tinydeploy.emulate.arch import architecture_of
from tinydeploy.emulate.cpu import Cpu
from tinydeploy.emulate.cycles.loads import ALWAYS, Load
from tinydeploy.emulate.cycles.model import Cycles, cycles_of
from tinydeploy.emulate.cycles.trace import FlashCount, Trace, Way
from tinydeploy.emulate.image import Image
from tinydeploy.errors import DeployError
from tinydeploy.targets import Core, FlashTiming
from tinydeploy.timing import CoreTiming

_DISTURBED = "under the hooks that see the flash the run was another than without, so there is no figure"


@dataclass(frozen=True)
class Outcome:
    """What a run left behind; two runs that agree in it did the same."""

    outputs: tuple[bytes, ...]
    status: int
    digest: str


@dataclass(frozen=True)
class CycleCount:
    """Cycles of one run.

    Attributes:
        per_function: of each layer function and of ``NAME_run``, with what they called; None where there is
            no figure, and then the notes say why.
        notes: what the figure leaves out, or why there is none.
        flash: lines that each function's code fetched; empty where no flash was simulated.
    """

    per_function: Mapping[str, Cycles] | None
    notes: tuple[str, ...] = ()
    flash: Mapping[str, FlashCount] = field(default_factory=dict)

    @property
    def total(self) -> Cycles | None:
        """The sum over all functions."""
        return None if self.per_function is None else sum(self.per_function.values(), Cycles())


Traced = tuple[Trace, Outcome]
Again = Callable[[Way, tuple[Load, ...]], Traced]


def count_cycles(
    core: Core,
    image: Image,
    flash: FlashTiming | None,
    counted: Traced,
    again: Again,
    *,
    code: Image | None = None,
) -> CycleCount:
    """Cycles of one call.

    Args:
        flash: of the board; None leaves out what the flash adds.
        counted: blocks and outcome of the call with no hook but that on blocks.
        again: does the same call on a core of its own, with the flash's caches simulated, and its reads seen
            in the way that it is given.
        code: the part of the image that can run; all of it where it is left out.

    Raises:
        DeployError: the code faulted or did not come back.
    """
    if core.timing is None:
        return CycleCount(None, (f"there is no table of timings for the core {core.name}",))
    trace = counted[0]
    notes: tuple[str, ...] = ()
    if flash is not None:
        loads = architecture_of(core).find_loads(code or image)
        found = _trace_flash(loads, counted, again)
        if found is None:
            return CycleCount(None, (_DISTURBED,))
        trace = found
    else:
        notes = ("waits for the flash are not in the cycles",)
    reader = Cpu(core, image, 0)
    try:
        costs = cycles_of(trace, core.timing, flash, reader.read, reader.architecture.instructions)
        if core.timing.pairs is not None:
            notes = (*notes, *_pairs_notes(trace, core.timing, flash, reader))
        lines = {} if flash is None else dict(zip(trace.owners, trace.flash, strict=True))
        return CycleCount(costs, notes, lines)
    except DeployError as error:
        return CycleCount(None, (str(error),))


def _trace_flash(loads: tuple[Load, ...], counted: Traced, again: Again) -> Trace | None:
    """The run with its caches, or None where no way of seeing the reads leaves the run as it is."""
    # The hook on reads is known to disturb conditional loads; what else it may disturb, the comparison shows.
    ways: tuple[Way, ...] = ("reads", "addresses")
    if any(load.condition != ALWAYS for load in loads):
        ways = ("addresses", "reads")
    for way in ways:
        trace, outcome = again(way, loads)
        if outcome == counted[1] and trace.blocks == counted[0].blocks:
            return trace
    return None


def _pairs_notes(trace: Trace, timing: CoreTiming, flash: FlashTiming | None, reader: Cpu) -> Iterator[str]:
    """How far the pairing of instructions can be off, at the most."""
    alone, decode = replace(timing, pairs=None), reader.architecture.instructions
    single = sum(cycles_of(trace, alone, flash, reader.read, decode).values(), Cycles())
    yield f"two instructions at a time are modelled; one at a time would take {single.total:,} cycles"
