"""Cycles of a model: one more run, under the hooks that the flash needs, checked against one without."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tinydeploy.emulate.arch import architecture_of
from tinydeploy.emulate.build import Firmware
from tinydeploy.emulate.cpu import Cpu
from tinydeploy.emulate.cycles.loads import ALWAYS
from tinydeploy.emulate.cycles.model import Cycles, cycles_of
from tinydeploy.emulate.cycles.trace import Trace, Way, make_plan
from tinydeploy.emulate.cycles.tracer import make_tracer
from tinydeploy.emulate.memory import ModelMemory, buffer_bytes
from tinydeploy.errors import DeployError
from tinydeploy.targets import FlashTiming

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
    """

    per_function: Mapping[str, Cycles] | None
    notes: tuple[str, ...] = ()

    @property
    def total(self) -> Cycles | None:
        """The sum over all functions."""
        return None if self.per_function is None else sum(self.per_function.values(), Cycles())


Call = Callable[[ModelMemory, Sequence[bytes]], Outcome]


def count_cycles(
    firmware: Firmware,
    flash: FlashTiming | None,
    inputs: Sequence[bytes],
    counted: tuple[Trace, Outcome],
    call: Call,
) -> CycleCount:
    """Cycles of one call of ``NAME_run``.

    Args:
        flash: of the board; None leaves out what the flash adds.
        counted: blocks and outcome of the same run with no hook but that on blocks.
        call: runs the model on a core of its own that it is given, as the counted run was.

    Raises:
        DeployError: the code faulted or did not come back.
    """
    core = firmware.core
    if core.timing is None:
        return CycleCount(None, (f"there is no table of timings for the core {core.name}",))
    trace = counted[0]
    notes: tuple[str, ...] = ()
    if flash is not None:
        found = _trace_flash(firmware, flash, inputs, counted, call)
        if found is None:
            return CycleCount(None, (_DISTURBED,))
        trace = found
    else:
        notes = ("waits for the flash are not in the cycles",)
    reader = Cpu(core, firmware.image, 0)
    decode = reader.architecture.instructions
    try:
        return CycleCount(cycles_of(trace, core.timing, flash, reader.read, decode), notes)
    except DeployError as error:
        return CycleCount(None, (str(error),))


def _trace_flash(
    firmware: Firmware,
    flash: FlashTiming,
    inputs: Sequence[bytes],
    counted: tuple[Trace, Outcome],
    call: Call,
) -> Trace | None:
    """The run with its caches, or None where no way of seeing the reads leaves the run as it is."""
    image = firmware.image
    loads = architecture_of(firmware.core).find_loads(image)
    # The hook on reads is known to disturb conditional loads; what else it may disturb, the comparison shows.
    ways: tuple[Way, ...] = ("reads", "addresses")
    if any(load.condition != ALWAYS for load in loads):
        ways = ("addresses", "reads")
    for way in ways:
        memory = ModelMemory(firmware, Cpu(firmware.core, image, buffer_bytes(firmware.abi)))
        tracer = make_tracer(memory.cpu, make_plan(image, firmware.abi.name, flash), way, loads)
        memory.places("arena", 0)  # asks the model, which must not count
        tracer.start()
        outcome, trace = call(memory, inputs), tracer.trace()
        if outcome == counted[1] and trace.blocks == counted[0].blocks:
            return trace
    return None
