"""One call of a function in a linked firmware: instructions and cycles of every function that it came to."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from tinydeploy.emulate import stack
from tinydeploy.emulate.counting import InstructionCounter
from tinydeploy.emulate.cpu import Cpu
from tinydeploy.emulate.cycles.loads import Load
from tinydeploy.emulate.cycles.meter import CycleCount, Outcome, count_cycles
from tinydeploy.emulate.cycles.model import Cycles
from tinydeploy.emulate.cycles.trace import Caches, Plan, Trace, Way, code_spans, function_ends, owners_at
from tinydeploy.emulate.cycles.tracer import make_tracer
from tinydeploy.emulate.firmware import Linked, executed_code
from tinydeploy.emulate.image import Image, Symbol
from tinydeploy.errors import DeployError
from tinydeploy.targets import Core, FlashTiming

NO_SYMBOL = "(no symbol)"
_MAX_FUNCTIONS = 32_000
_SECONDS = 1800.0


@dataclass(frozen=True)
class Call:
    """What is run.

    Attributes:
        entry: the function whose cost is wanted.
        arguments: values of the registers for arguments, as far as they are set.
        setup: functions without arguments that run before it and are not counted.
        writes: addresses and bytes that are put there after the setup, whether that is RAM or flash.
        limit: instructions after which the call is given up.
    """

    entry: Symbol
    arguments: tuple[int, ...] = ()
    setup: tuple[Symbol, ...] = ()
    writes: tuple[tuple[int, bytes], ...] = ()
    limit: int = 2_000_000_000


@dataclass(frozen=True)
class FunctionCost:
    """One function, without what it called.

    Attributes:
        address: None for code that no symbol names.
        calls: how often it was entered at its start.
        cycles: None where there is no figure.
    """

    name: str
    address: int | None
    calls: int
    instructions: int
    cycles: Cycles | None


@dataclass(frozen=True)
class FirmwareRun:
    """What one call did.

    Attributes:
        result: r0 or a0 at its end, as a signed number.
        functions: every function that ran, the dearest first.
        stack_bytes: peak stack below the entry, by the lowest word that was written.
    """

    result: int
    functions: tuple[FunctionCost, ...]
    cycles: CycleCount
    stack_bytes: int

    @property
    def instructions(self) -> int:
        return sum(function.instructions for function in self.functions)


def run_firmware(core: Core, linked: Linked, flash: FlashTiming | None, call: Call) -> FirmwareRun:
    """Calls a function and counts.

    Args:
        flash: of the board; None for memory that never waits.

    Raises:
        DeployError: the code faulted, did not return within the limit, or the core lacks its instructions.
        MissingExtraError: unicorn or capstone is not installed.
    """
    session = _Session(core, linked, call)
    labels = _labels(linked.image)
    cpu = session.cpu()
    counter = InstructionCounter(cpu, linked.image, _plan(linked, labels, None, call.limit))
    outcome = session.run(cpu, counter)
    trace = counter.trace()
    per_function = counter.per_function(trace)
    total = sum(per_function.values())
    if total > call.limit:
        raise _too_long(call.entry, call.limit)
    if session.run(session.cpu(), None) != outcome:
        raise DeployError("two runs of the same call do not agree", where=call.entry.name)
    _require_supported(core, trace, cpu, linked.image)
    code = executed_code(linked.image, {(address, size) for _, address, size in trace.blocks})

    def again(way: Way, loads: tuple[Load, ...]) -> tuple[Trace, Outcome]:
        other = session.cpu()
        tracer = make_tracer(other, _plan(linked, labels, flash, call.limit), way, loads)
        done = session.run(other, tracer)
        return tracer.trace(), done

    has_flash = linked.flash[1] > linked.flash[0]
    modelled = flash if has_flash else None
    cycles = count_cycles(core, linked.image, modelled, (trace, outcome), again, code=code)
    return FirmwareRun(
        result=outcome.status,
        functions=_functions(trace, per_function, cycles.per_function, labels),
        cycles=cycles,
        stack_bytes=session.stack_bytes,
    )


class _Session:
    """The same call on one core after another."""

    def __init__(self, core: Core, linked: Linked, call: Call) -> None:
        self._core, self._linked, self._call = core, linked, call
        self.stack_bytes = 0

    def cpu(self) -> Cpu:
        """A core with the firmware in its memory, nothing run yet."""
        return Cpu(self._core, self._linked.image, self._linked.layout)

    def run(self, cpu: Cpu, counter: Counting | None) -> Outcome:
        """Setup, inputs, and the call itself, which alone is counted."""
        call = self._call
        for function in call.setup:
            self._enter(cpu, counter, function, ())
        for address, data in call.writes:
            cpu.write(address, data)
        stack.paint(cpu)
        if counter is not None:
            counter.start()
        result = self._enter(cpu, counter, call.entry, call.arguments)
        self.stack_bytes = stack.painted_over(cpu)
        return Outcome((), result, self._digest(cpu))

    def _enter(self, cpu: Cpu, counter: Counting | None, function: Symbol, arguments: tuple[int, ...]) -> int:
        try:
            return cpu.call_at(function.address, function.name, arguments, _SECONDS)
        except DeployError as error:
            if counter is not None and counter.stopped():
                raise _too_long(function, self._call.limit) from error
            raise

    def _digest(self, cpu: Cpu) -> str:
        """A hash of all memory that can be written."""
        layout = self._linked.layout
        spans = [(s.address, s.size) for s in self._linked.image.segments if s.writable]
        found = hashlib.sha256()
        for start, size in (*spans, *layout.rooms, (layout.stack_bottom, layout.stack_bytes)):
            found.update(cpu.read(start, size))
        return found.hexdigest()


class Counting(Protocol):
    """What counts a call: a tracer, or a counter around one."""

    def start(self) -> None:
        """Forgets all counts."""

    def stopped(self) -> bool:
        """Whether the limit stopped the run."""


def _too_long(function: Symbol, limit: int) -> DeployError:
    hint = "a loop that waits for hardware or an interrupt; --max-instructions raises the limit"
    return DeployError(f"did not return within {limit:,} instructions", where=function.name, hint=hint)


def _labels(image: Image) -> Mapping[str, Symbol]:
    """Every function by a name that it alone has.

    Raises:
        DeployError: there are more than a firmware has.
    """
    if len(image.functions) > _MAX_FUNCTIONS:
        fact = f"has {len(image.functions):,} functions; the limit is {_MAX_FUNCTIONS:,}"
        raise DeployError(fact, where=str(image.path))
    times = Counter(function.name for function in image.functions)
    return {f.name if times[f.name] == 1 else f"{f.name} (0x{f.address:08x})": f for f in image.functions}


def _plan(linked: Linked, labels: Mapping[str, Symbol], flash: FlashTiming | None, limit: int) -> Plan:
    """Every function is its own owner; code without a symbol belongs to nobody in particular."""
    code = code_spans(linked.image)
    number = {symbol.address: index for index, symbol in enumerate(labels.values(), 1)}
    owned = [(f.address, end, number[f.address]) for f, end in function_ends(linked.image)]
    return Plan(
        owners=(NO_SYMBOL, *labels),
        first=0,
        code=code,
        owner_at=owners_at(code, owned, 0),
        flash=linked.flash,
        caches=None if flash is None else Caches.of(flash),
        # No instruction is longer than two halfwords, so that what is stopped has gone beyond the limit.
        limit=2 * limit,
    )


def _require_supported(core: Core, trace: Trace, cpu: Cpu, image: Image) -> None:
    """Refuses a call that executed what the core does not have; the emulator knows more than some cores."""
    architecture = cpu.architecture
    for start, size in sorted({(address, size) for _, address, size in trace.blocks}):
        code, position = cpu.read(start, size), 0
        while position < size:
            length = architecture.length_at(code, position)
            data = code[position : position + length]
            why = architecture.why_unsupported(core, data, start + position)
            if why is not None:
                fact = f"{core.name} cannot run '{why[0]}': {why[1]}"
                where = image.locate(start + position)
                raise DeployError(fact, where=where, hint="is the code built for another core?")
            position += length


def _functions(
    trace: Trace,
    instructions: Mapping[str, int],
    cycles: Mapping[str, Cycles] | None,
    labels: Mapping[str, Symbol],
) -> tuple[FunctionCost, ...]:
    """The cost of each function that ran, the dearest first."""
    entered: Counter[int] = Counter()
    for (_, address, _), (times, _) in trace.blocks.items():
        entered[address] += times
    found = []
    for name, count in instructions.items():
        symbol = labels.get(name)
        calls = 0 if symbol is None else entered[symbol.address]
        own = None if cycles is None else cycles.get(name, Cycles())
        found.append(FunctionCost(name, None if symbol is None else symbol.address, calls, count, own))

    def dearest(cost: FunctionCost) -> tuple[int, str]:
        return (-(cost.instructions if cost.cycles is None else cost.cycles.total), cost.name)

    return tuple(sorted(found, key=dearest))
