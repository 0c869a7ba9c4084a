"""`profile` of a firmware that the user built: what one call of a function costs, function by function."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tinydeploy.data import read_dataset
from tinydeploy.emulate.arch import architecture_of, architecture_of_machine
from tinydeploy.emulate.firmware import Linked, entry_symbol, on_board, read_firmware
from tinydeploy.emulate.firmware_run import Call, FirmwareRun, FunctionCost, run_firmware
from tinydeploy.emulate.image import Image, Symbol
from tinydeploy.energy import energy_json, energy_of
from tinydeploy.errors import DeployError
from tinydeploy.latency import Latency, latency_of
from tinydeploy.measure import Progress, silent
from tinydeploy.targets import Board, Target
from tinydeploy.toml_file import nearest

MAX_INSTRUCTIONS = 2_000_000_000


@dataclass(frozen=True)
class FirmwareCall:
    """What is called in a firmware, as a user says it.

    Attributes:
        entry: symbol of the function whose cost is wanted.
        arguments: what the registers hold, r0 to r3 on Arm and a0 to a7 on RISC-V: numbers (12, -1,
            0x20000000), or symbols for their address.
        inputs: `SYMBOL=FILE.npz`, `SYMBOL=FILE.npz:KEY` or `SYMBOL=FILE` of raw bytes.
        setup: symbols of functions without arguments that are called before, and not counted.
        max_instructions: after which the call is given up.
    """

    entry: str
    arguments: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    max_instructions: int = MAX_INSTRUCTIONS


@dataclass(frozen=True)
class FirmwareTarget:
    """A firmware on one target.

    Attributes:
        flash_bytes: all sections that take up room in flash.
        ram_bytes: all sections in RAM, and the peak stack of the call.
        fits: whether both suffice; None for a core, which has neither.
        why: the answer in words.
    """

    target: Target
    run: FirmwareRun
    latency: Latency
    flash_bytes: int
    ram_bytes: int
    fits: bool | None
    why: str

    def to_json(self) -> dict[str, object]:
        return {
            "target": self.target.name,
            "fits": self.fits,
            "why": self.why,
            "flash_bytes": self.flash_bytes,
            "ram_bytes": self.ram_bytes,
            "stack_bytes": self.run.stack_bytes,
            "instructions": self.run.instructions,
            "result": self.run.result,
            **self.latency.to_json(),
            **energy_json(energy_of(self.latency.cycles, self.target.board)),
            "source": "emulated",
        }


@dataclass(frozen=True)
class FirmwareProfile:
    """What `profile` reports of a firmware; the functions are those of the first target."""

    path: str
    entry: str
    targets: tuple[FirmwareTarget, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def all_fit(self) -> bool:
        return all(t.fits is not False for t in self.targets)

    def to_json(self) -> dict[str, object]:
        """The keys of a model's profile, and `functions`; what a firmware has not is None."""
        first = self.targets[0].run
        return {
            "model": self.path,
            "entry": self.entry,
            "macs": None,
            "params": None,
            "layers": [],
            "functions": [function_json(f, first) for f in first.functions],
            "targets": [t.to_json() for t in self.targets],
            "notes": list(self.notes),
        }


def function_json(f: FunctionCost, run: FirmwareRun) -> dict[str, object]:
    """One function; `share` is that of the cycles, or of the instructions where there are none."""
    return {
        "name": f.name,
        "address": f.address,
        "calls": f.calls,
        "instructions": f.instructions,
        "cycles": None if f.cycles is None else f.cycles.total,
        "share": share_of(f, run),
        "cycles_parts": None if f.cycles is None else f.cycles.to_json(),
    }


def share_of(f: FunctionCost, run: FirmwareRun) -> float:
    """The fraction of the call that one function takes by itself."""
    total = run.cycles.total
    if f.cycles is None or total is None:
        return f.instructions / max(1, run.instructions)
    return f.cycles.total / max(1, total.total)


def profile_firmware(
    path: Path, targets: Sequence[Target], call: FirmwareCall, *, progress: Progress = silent
) -> FirmwareProfile:
    """Runs one call of a linked firmware on the core of each target.

    Raises:
        DeployError: the file, a symbol, an argument or an input is wrong, or the code cannot be run.
        MissingExtraError: the extra `emulate` is not installed.
    """
    for target in targets:
        if target.core.architecture == "host":
            raise DeployError(f"a firmware runs on a microcontroller, not on {target.name}", where="--target")
    linked = read_firmware(path)
    for target in targets:
        wanted = architecture_of(target.core).machine
        if linked.image.machine != wanted:
            fact = f"is an ELF file for {linked.image.machine}, and {target.name} runs code for {wanted}"
            raise DeployError(fact, where=str(path), hint="--target with a board that the firmware is for")
    resolved, notes = _resolve(linked, call)
    found = []
    for number, target in enumerate(targets):
        progress(f"running on {target.name}", number, len(targets))
        found.append(_on_target(on_board(linked, target.board), target, resolved))
    notes += [
        f"0x{s.address:08x} lies outside the flash that is modelled; it is taken not to wait"
        for s in linked.beyond
    ]
    return FirmwareProfile(str(path), call.entry, tuple(found), tuple(notes))


def _on_target(linked: Linked, target: Target, call: Call) -> FirmwareTarget:
    board = target.board
    run = run_firmware(target.core, linked, board.flash if board else None, call)
    ram = linked.static_ram_bytes + run.stack_bytes
    fits, why = _verdict(linked.flash_bytes, ram, board)
    latency = latency_of(run.cycles, target.core, board)
    return FirmwareTarget(target, run, latency, linked.flash_bytes, ram, fits, why)


def _verdict(flash: int, ram: int, board: Board | None) -> tuple[bool | None, str]:
    if board is None:
        return None, "a core has no flash and RAM of its own; name a board to see whether it fits"
    needs = (("flash", flash, board.flash_bytes), ("RAM", ram, board.ram_bytes))
    over = [
        f"{what}: {need:,} B needed, {has:,} B there, {need - has:,} B over"
        for what, need, has in needs
        if need > has
    ]
    return not over, "; ".join(over or [f"{what}: {need:,} of {has:,} B" for what, need, has in needs])


def _resolve(linked: Linked, call: FirmwareCall) -> tuple[Call, list[str]]:
    """The call with addresses in place of symbols, and notes about its inputs."""
    image = linked.image
    registers = architecture_of_machine(image.machine).call.arguments
    if len(call.arguments) > len(registers):
        fact = (
            f"{len(call.arguments)} arguments are given, and registers {registers[0]} to {registers[-1]} hold"
        )
        raise DeployError(f"{fact} {len(registers)}", where="--arg")
    notes: list[str] = []
    writes = tuple(_write(image, text, notes) for text in call.inputs)
    return Call(
        entry=entry_symbol(image, call.entry),
        arguments=tuple(_argument(image, text) for text in call.arguments),
        setup=tuple(entry_symbol(image, name) for name in call.setup),
        writes=writes,
        limit=call.max_instructions,
    ), notes


def _argument(image: Image, text: str) -> int:
    """The word that goes into a register."""
    try:
        value = int(text, 0)
    except ValueError:
        symbol = _symbol(image, text, "--arg")
        bit = architecture_of_machine(image.machine).call.state_bit
        return symbol.address | (bit if symbol.is_function else 0)
    if not -(1 << 31) <= value < 1 << 32:
        raise DeployError(f"{text} does not fit a register of 32 bits", where="--arg")
    return value & 0xFFFF_FFFF


def _write(image: Image, text: str, notes: list[str]) -> tuple[int, bytes]:
    """Address and bytes of one `--input`."""
    name, equals, source = text.partition("=")
    if not (equals and name and source):
        hint = "--input SYMBOL=FILE.npz, SYMBOL=FILE.npz:KEY or SYMBOL=FILE.bin"
        raise DeployError(f"{text!r} names no symbol and file", where="--input", hint=hint)
    symbol = _symbol(image, name, "--input")
    data = _read(source)
    around = _segment_room(image, symbol)
    room = min(symbol.size or around, around)
    if len(data) > room:
        fact = f"holds {len(data):,} bytes, and {name!r} has {room:,}"
        raise DeployError(fact, where=source, hint="is it of the type that the code reads?")
    if len(data) < room and symbol.size:
        notes.append(f"{source}: {len(data):,} bytes for {name!r}, which has {room:,}; the rest is as linked")
    return symbol.address, data


def _read(source: str) -> bytes:
    """The bytes of a raw file, or of the first sample of an array of an .npz file."""
    path, key = source, "x"
    if ".npz:" in source:
        path, _, key = source.rpartition(":")
    if not path.endswith(".npz"):
        return _raw(Path(path))
    arrays = read_dataset(Path(path)).arrays
    if key not in arrays:
        raise DeployError(f"has no array {key!r}; it holds {sorted(arrays)}", where=path)
    array = arrays[key]
    if array.dtype.kind not in "iufb":
        raise DeployError(f"{key!r} has elements of type {array.dtype}, not numbers", where=path)
    if array.ndim == 0 or not array.shape[0]:
        raise DeployError(f"{key!r} holds no sample", where=path, hint="samples come first")
    return np.ascontiguousarray(array[0], array.dtype.newbyteorder("<")).tobytes()


def _raw(path: Path) -> bytes:
    try:
        if path.stat().st_size > 1 << 28:
            raise DeployError("is larger than 256 MiB", where=str(path))
        return path.read_bytes()
    except OSError as error:
        raise DeployError(f"cannot be read ({error.strerror})", where=str(path)) from error


def _segment_room(image: Image, symbol: Symbol) -> int:
    """Bytes from a symbol to the end of its memory; 0 where it lies in none."""
    ends = [s.address + s.size for s in image.segments if s.address <= symbol.address < s.address + s.size]
    return max(ends) - symbol.address if ends else 0


def _symbol(image: Image, name: str, where: str) -> Symbol:
    found = {s.address: s for s in image.symbols if s.name == name}
    if not found:
        guess = nearest(name, [s.name for s in image.symbols])
        raise DeployError(f"{image.path} has no symbol {name!r}", where=where, hint=guess.strip())
    if len(found) > 1:
        raise DeployError(f"{image.path} has {len(found)} symbols {name!r}", where=where)
    return next(iter(found.values()))
