"""Where a model's inputs, outputs and arena lie in the emulated memory, and the paint around them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from tinydeploy.emulate.abi import ModelAbi
from tinydeploy.emulate.build import Firmware
from tinydeploy.emulate.cpu import BUFFERS_ADDRESS, STACK_BOTTOM, STACK_BYTES, Cpu

CANARY_BYTES = 64
_GUARD = 64
_IO_BYTES = 256
_CALL_SECONDS = 10.0
_INIT_SECONDS = 600.0


def buffer_bytes(abi: ModelAbi) -> int:
    """Room that the outside buffers and ``struct NAME_io`` take, guards included."""
    sizes = (*abi.input_bytes, *abi.output_bytes)
    return _io_room(abi) + sum(_room(size) for size in sizes)


def _room(size: int) -> int:
    return -(-(size + 16 + 2 * _GUARD) // 16) * 16


def _io_room(abi: ModelAbi) -> int:
    return max(_IO_BYTES, 8 * (len(abi.input_bytes) + len(abi.output_bytes)))


class ModelMemory:
    """One emulated core's memory, seen as that of one model."""

    def __init__(self, firmware: Firmware, cpu: Cpu) -> None:
        self.cpu = cpu
        self.abi = firmware.abi
        self._arena = firmware.arena.address if firmware.arena is not None else 0
        self._arena_bytes = firmware.abi.arena_bytes if firmware.arena is not None else 0
        noise = np.random.default_rng(7)
        size = self._arena_bytes + 2 * CANARY_BYTES
        first = noise.integers(0, 256, size, dtype=np.uint8)
        # The second contents differ from the first in every byte.
        self._paints = (first, first ^ np.uint8(0xA5))
        self._guards = noise.integers(0, 256, buffer_bytes(self.abi), dtype=np.uint8)
        self._contents = 0
        self._arena_places: tuple[tuple[int, ...], tuple[int, ...]] | None = None

    def prepare(
        self, inputs: Sequence[bytes], place: str, offset: int, contents: int
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Paints arena and buffers, writes the inputs, and gives the arguments of ``NAME_run``.

        Returns:
            the arguments, and the address of each output.
        """
        self._contents = contents
        if self._arena_bytes:
            self.cpu.write(self._arena - CANARY_BYTES, self._paints[contents].tobytes())
        self.cpu.write(BUFFERS_ADDRESS, self._guards.tobytes())
        into, out = self.places(place, offset)
        for address, data in zip(into, inputs, strict=True):
            self.cpu.write(address, data)
        if self.abi.single:
            return (*into, *out), out
        pointers = np.array([*into, *out], dtype="<u4")
        self.cpu.write(BUFFERS_ADDRESS, pointers.tobytes())
        return (BUFFERS_ADDRESS,), out

    def places(self, place: str, offset: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The addresses of inputs and outputs."""
        if place == "outside":
            return self._outside_places(offset)
        if self._arena_places is None:
            symbols = (self.abi.input_symbols, self.abi.output_symbols)
            into, out = (tuple(self._ask(name) for name in names) for names in symbols)
            self._arena_places = (into, out)
        return self._arena_places

    def initialise(self) -> None:
        """Calls ``NAME_init`` where there is one, as start-up code does."""
        if self.abi.init:
            self.cpu.call(self.abi.init_symbol, (), _INIT_SECONDS)

    def canary_intact(self) -> bool:
        """Whether the bytes before and behind the arena are as they were painted."""
        if not self._arena_bytes:
            return True
        changed = self._changed_bytes()
        return not (changed[:CANARY_BYTES].any() or changed[-CANARY_BYTES:].any())

    def digest(self) -> str:
        """A hash of all that the model may have written: arena, outside buffers and stack."""
        everything = hashlib.sha256(self.cpu.read(BUFFERS_ADDRESS, self._guards.size))
        everything.update(self.cpu.read(STACK_BOTTOM, STACK_BYTES))
        if self._arena_bytes:
            everything.update(self.cpu.read(self._arena, self._arena_bytes))
        return everything.hexdigest()

    def arena_touched(self, place: str, contents: int) -> int:
        """1 + the highest changed byte of the arena; in the arena, inputs and outputs count as touched."""
        if not self._arena_bytes:
            return 0
        changed = np.flatnonzero(self._changed_bytes()[CANARY_BYTES:-CANARY_BYTES])
        ends = [int(changed[-1]) + 1] if changed.size else [0]
        if place == "arena":
            addresses = [address for group in self.places("arena", 0) for address in group]
            sizes = (*self.abi.input_bytes, *self.abi.output_bytes)
            ends += [a + size - self._arena for a, size in zip(addresses, sizes, strict=True)]
        return max(ends)

    def outside_faults(self, inputs: Sequence[bytes], place: str, offset: int) -> tuple[str, ...]:
        """What the run did to outside buffers that it must not do: write an input, or beside an output."""
        if place != "outside":
            return ()
        into, out = self._outside_places(offset)
        faults = [
            f"input {index} was written"
            for index, (address, data) in enumerate(zip(into, inputs, strict=True))
            if self.cpu.read(address, len(data)) != data
        ]
        memory = np.frombuffer(self.cpu.read(BUFFERS_ADDRESS, self._guards.size), np.uint8)
        beside = memory != self._guards
        beside[: _io_room(self.abi)] = False
        sizes = (*self.abi.input_bytes, *self.abi.output_bytes)
        for address, size in zip((*into, *out), sizes, strict=True):
            beside[address - BUFFERS_ADDRESS : address - BUFFERS_ADDRESS + size] = False
        if beside.any():
            faults.append("memory beside the output buffers was written")
        return tuple(faults)

    def _outside_places(self, offset: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        addresses = []
        start = BUFFERS_ADDRESS + _io_room(self.abi)
        for size in (*self.abi.input_bytes, *self.abi.output_bytes):
            addresses.append(start + _GUARD + offset % 16)
            start += _room(size)
        inputs = len(self.abi.input_bytes)
        return tuple(addresses[:inputs]), tuple(addresses[inputs:])

    def _changed_bytes(self) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        size = self._arena_bytes + 2 * CANARY_BYTES
        memory = np.frombuffer(self.cpu.read(self._arena - CANARY_BYTES, size), np.uint8)
        return np.asarray(memory != self._paints[self._contents])

    def _ask(self, name: str) -> int:
        return self.cpu.call(name, (), _CALL_SECONDS) & 0xFFFFFFFF
