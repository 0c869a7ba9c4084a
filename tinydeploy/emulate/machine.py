"""Runs an exported model on an emulated core: outputs, instructions, stack, and what silicon would refuse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np

from tinydeploy.emulate import stack
from tinydeploy.emulate.alignment import AlignmentWatch
from tinydeploy.emulate.build import Firmware
from tinydeploy.emulate.counting import InstructionCounter, blocks_of
from tinydeploy.emulate.cpu import Cpu
from tinydeploy.emulate.cycles.loads import Load
from tinydeploy.emulate.cycles.meter import CycleCount, Outcome, count_cycles
from tinydeploy.emulate.cycles.trace import Trace, Way, make_plan
from tinydeploy.emulate.cycles.tracer import make_tracer
from tinydeploy.emulate.memory import ModelMemory, buffer_bytes
from tinydeploy.errors import DeployError
from tinydeploy.targets import FlashTiming

Place = Literal["arena", "outside"]
_SECONDS = 1800.0


@dataclass(frozen=True)
class Run:
    """What one call of ``NAME_run`` did.

    Attributes:
        outputs: the bytes of each output.
        status: what ``NAME_run`` returned.
        instructions: executed instructions, None where they were not counted.
        per_function: instructions of each layer function and of ``NAME_run``, with what they called; the sum
            is ``instructions``.
        stack_bytes: peak stack below ``NAME_run``; where instructions are counted this follows the stack
            pointer, else it is the lowest word that was written.
        arena_touched: 1 + the highest byte of the arena that was written, the inputs' and outputs' places
            included. Exact where instructions are counted (two runs over different contents); else a byte
            that was overwritten with the value it had is not seen.
        canary_intact: nothing around the arena was written.
        faults: what a real core would refuse or the contract forbids, as one line each.
        blocks: how often each block of instructions (address, size in bytes) ran; empty where not counted.
        cycles: modelled cycles; None where they were not asked for.
        init_instructions: of ``NAME_init``, which is called before the counted run and is not in it; None
            where there is none or nothing was counted. Runs that are not counted leave it to ``NAME_run``.
    """

    outputs: tuple[bytes, ...]
    status: int
    instructions: int | None
    per_function: Mapping[str, int]
    stack_bytes: int
    arena_touched: int
    canary_intact: bool
    faults: tuple[str, ...]
    blocks: Mapping[tuple[int, int], int] = field(default_factory=dict)
    cycles: CycleCount | None = None
    init_instructions: int | None = None


class Machine:
    """An emulated core with one model in its memory; kept warm from run to run, not shared by threads.

    Hooks slow the emulation and are seen only by code that was translated after them, so the plain, the
    counted and the watched runs have a core each, made when first needed.

    Args:
        firmware: the linked model.
        flash: of the board whose cycles are modelled; None for memory that never waits.
        seconds: the longest that one call may take. A limit in instructions would need a hook on each.

    Raises:
        MissingExtraError: unicorn or capstone is not installed.
    """

    def __init__(
        self, firmware: Firmware, seconds: float = _SECONDS, *, flash: FlashTiming | None = None
    ) -> None:
        self._firmware, self._flash = firmware, flash
        self._seconds = seconds
        self._plain = self._memory()

    def run(
        self,
        inputs: Sequence[bytes],
        *,
        place: Place = "arena",
        offset: int = 0,
        count: bool = False,
        cycles: bool = False,
        check_alignment: bool = False,
    ) -> Run:
        """Runs the model once.

        Args:
            inputs: the bytes of each input, of the sizes in the firmware's ``abi``.
            place: "arena" puts inputs and outputs where ``NAME_input`` and ``NAME_output`` say; "outside"
                puts them into buffers of their own.
            offset: bytes that outside buffers lie behind a multiple of 16.
            count: count instructions; the model then runs once more without hooks, and a difference
                between the two runs' outputs is a fault.
            cycles: model the cycles of the counted run, which ``count`` has to ask for.
            check_alignment: run once more and report each access whose misalignment a real core would refuse.

        Raises:
            DeployError: inputs of another number or size; the code faulted or did not come back.
        """
        self._check(inputs)
        result = self._call(self._plain, inputs, place, offset)
        if count:
            result = self._count(result, inputs, place, offset, cycles)
        if check_alignment:
            watched, watch = self._watched
            watch.start()
            again = self._call(watched, inputs, place, offset)
            differences = _differences(result, again, "under the alignment check")
            result = replace(result, faults=(*result.faults, *watch.faults(), *differences))
        return result

    def _count(self, plain: Run, inputs: Sequence[bytes], place: Place, offset: int, cycles: bool) -> Run:
        """The same run over other contents of the arena and with hooks: the counts, and a cross-check."""
        counted, counter, depth = self._counted
        counted.places(place, offset)  # asks the model once, which must not count
        initialising = self._count_init(counted, counter)
        counter.start()
        depth.start()
        again = self._call(counted, inputs, place, offset, contents=1)
        trace = counter.trace()
        per_function = counter.per_function(trace)
        differences = _differences(plain, again, "over other contents of the arena, or under hooks")
        return replace(
            plain,
            instructions=sum(per_function.values()),
            per_function=per_function,
            stack_bytes=max(plain.stack_bytes, again.stack_bytes, depth.deepest()),
            arena_touched=max(plain.arena_touched, again.arena_touched),
            canary_intact=plain.canary_intact and again.canary_intact,
            faults=(*plain.faults, *differences),
            blocks=blocks_of(trace),
            cycles=self._cycles(trace, counted, again, inputs, place, offset) if cycles else None,
            init_instructions=initialising,
        )

    def _count_init(self, counted: ModelMemory, counter: InstructionCounter) -> int | None:
        if not self._firmware.abi.init:
            return None
        counter.start()
        counted.initialise()
        return sum(counter.per_function(counter.trace()).values())

    def _cycles(
        self,
        trace: Trace,
        counted: ModelMemory,
        run: Run,
        inputs: Sequence[bytes],
        place: Place,
        offset: int,
    ) -> CycleCount:
        """The cycles of the run that was just counted on ``counted``."""

        firmware, flash = self._firmware, self._flash

        def again(way: Way, loads: tuple[Load, ...]) -> tuple[Trace, Outcome]:
            memory = self._memory()
            plan = make_plan(firmware.image, firmware.abi.name, flash)
            tracer = make_tracer(memory.cpu, plan, way, loads)
            memory.places("arena", 0)  # asks the model, which must not count
            memory.initialise()
            tracer.start()
            done = self._call(memory, inputs, place, offset, contents=1)
            return tracer.trace(), Outcome(done.outputs, done.status, memory.digest())

        outcome = Outcome(run.outputs, run.status, counted.digest())
        return count_cycles(firmware.core, firmware.image, flash, (trace, outcome), again)

    @cached_property
    def _counted(self) -> tuple[ModelMemory, InstructionCounter, stack.StackWatch]:
        memory, image = self._memory(), self._firmware.image
        counter = InstructionCounter(memory.cpu, image, make_plan(image, self._firmware.abi.name, None))
        return memory, counter, stack.StackWatch(memory.cpu, image)

    @cached_property
    def _watched(self) -> tuple[ModelMemory, AlignmentWatch]:
        memory, image = self._memory(), self._firmware.image
        accesses = memory.cpu.architecture.find_accesses(image)
        return memory, AlignmentWatch(memory.cpu, image, accesses)

    def _call(
        self, memory: ModelMemory, inputs: Sequence[bytes], place: Place, offset: int, *, contents: int = 0
    ) -> Run:
        """One call on one core, with the arena's and the stack's former contents painted."""
        arguments, places = memory.prepare(inputs, place, offset, contents)
        stack.paint(memory.cpu)
        status = memory.cpu.call(memory.abi.run_symbol, arguments, self._seconds)
        sizes = memory.abi.output_bytes
        return Run(
            outputs=tuple(memory.cpu.read(a, size) for a, size in zip(places, sizes, strict=True)),
            status=status,
            instructions=None,
            per_function={},
            stack_bytes=stack.painted_over(memory.cpu),
            arena_touched=memory.arena_touched(place, contents),
            canary_intact=memory.canary_intact(),
            faults=memory.outside_faults(inputs, place, offset),
        )

    def _memory(self) -> ModelMemory:
        firmware = self._firmware
        return ModelMemory(firmware, Cpu(firmware.core, firmware.image, buffer_bytes(firmware.abi)))

    def _check(self, inputs: Sequence[bytes]) -> None:
        abi = self._firmware.abi
        sizes = tuple(len(data) for data in inputs)
        if sizes != abi.input_bytes:
            fact = f"inputs of {sizes} bytes, and the model takes {abi.input_bytes}"
            raise DeployError(fact, where=abi.name)


def _differences(first: Run, second: Run, when: str) -> tuple[str, ...]:
    if (first.outputs, first.status) == (second.outputs, second.status):
        return ()
    before, after = (np.frombuffer(b"".join(run.outputs), np.uint8) for run in (first, second))
    count = int(np.count_nonzero(before != after))
    return (f"{count} output bytes differ {when}",)
