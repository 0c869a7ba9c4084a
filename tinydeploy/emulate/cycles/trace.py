"""What a traced run is asked for, and what it gives."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from tinydeploy.emulate.image import Image, Symbol
from tinydeploy.targets import FlashTiming

Way = Literal["none", "reads", "addresses"]
"""How reads of the flash are seen: not at all, by a hook on reads, or by computing each load's address."""

BlockKey = tuple[int, int, int]
"""Number of the owner, address, size in bytes."""

NOBODY = -1
_NEIGHBOUR = 1 << 16  # bytes between two pieces of code that are still one stretch


@dataclass(frozen=True)
class Caches:
    """The memory in front of the core: all caches hold any line anywhere and replace the least recent.

    Attributes:
        line_bytes: bytes of a line, a power of two.
        instruction_lines: lines that the instruction side holds, at least the one it reads from.
        data_lines: lines of the data cache, 0 where every read goes to the flash.
        unified: whether reads of data go through the cache of the instruction side.
    """

    line_bytes: int
    instruction_lines: int
    data_lines: int
    unified: bool

    @staticmethod
    def of(flash: FlashTiming) -> Caches:
        """The caches of a board."""
        return Caches(
            flash.line_bytes,
            max(1, flash.icache_bytes // flash.line_bytes),
            flash.dcache_bytes // flash.line_bytes,
            flash.unified_cache,
        )


@dataclass(frozen=True)
class Plan:
    """What to count.

    Attributes:
        owners: names of the functions that cycles are given to.
        first: the owner at the start.
        code: first address of each stretch of code, and the first behind it; both are even.
        owner_at: owner of each halfword of all stretches, in order; NOBODY goes on with whoever ran last.
        flash: first address of what lies in flash, and the first behind it.
        caches: None where no fetches and reads are counted.
        limit: halfwords of instructions after which the run is stopped; None for no limit.
    """

    owners: tuple[str, ...]
    first: int
    code: tuple[tuple[int, int], ...]
    owner_at: npt.NDArray[np.int16]
    flash: tuple[int, int]
    caches: Caches | None
    limit: int | None = None

    def position(self, address: int) -> int:
        """The index of an address in `owner_at`, NOBODY where it lies in no stretch."""
        before = 0
        for start, end in self.code:
            if start <= address < end:
                return before + (address - start) // 2
            before += (end - start) // 2
        return NOBODY


@dataclass(frozen=True)
class FlashCount:
    """Lines fetched by one owner.

    Attributes:
        fetch_misses: lines of code that were not in the cache.
        fetch_next: those of them that follow the line fetched before, which a prefetch would have begun.
        reads: reads of data in flash.
        read_misses: lines that these had to fetch.
    """

    fetch_misses: int = 0
    fetch_next: int = 0
    reads: int = 0
    read_misses: int = 0


@dataclass(frozen=True)
class Trace:
    """The counts of one run: of each block how often it ran and how often it did not fall through."""

    owners: tuple[str, ...]
    blocks: Mapping[BlockKey, tuple[int, int]]
    flash: tuple[FlashCount, ...]


class Tracer(Protocol):
    """Hooks on one core that count what it executes."""

    def start(self) -> None:
        """Forgets all counts and empties the caches."""

    def trace(self) -> Trace:
        """What was counted since the start."""

    def stopped(self) -> bool:
        """Whether the limit of the plan stopped the run."""


def make_plan(image: Image, model: str, flash: FlashTiming | None) -> Plan:
    """What to count of a linked model.

    A block belongs to the layer function that it lies in (``NAME_03_conv_2d``, compiler suffixes such as
    ``.part.0`` cut off) or to ``NAME_run``; code elsewhere, such as memcpy, a 64-bit multiplication or a
    shared kernel, belongs to whichever of these ran last.

    Args:
        flash: the flash whose caches are simulated, None for none.
    """
    code = code_spans(image)
    layer = re.compile(rf"({re.escape(model)}_\d+_[A-Za-z0-9_]+|{re.escape(model)}_run)(\..*)?")
    names: list[str] = [f"{model}_run"]
    owned: list[tuple[int, int, int]] = []
    for function, end in function_ends(image):
        match = layer.fullmatch(function.name)
        if match is None:
            continue
        if match.group(1) not in names:
            names.append(match.group(1))
        owned.append((function.address, end, names.index(match.group(1))))
    stored = [segment for segment in image.segments if not segment.writable]
    return Plan(
        owners=tuple(names),
        first=0,
        code=code,
        owner_at=owners_at(code, owned, NOBODY),
        flash=(min(s.address for s in stored), max(s.address + s.size for s in stored)),
        caches=None if flash is None else Caches.of(flash),
    )


def code_spans(image: Image) -> tuple[tuple[int, int], ...]:
    """The stretches of memory that hold code; neighbouring ones are one."""
    spans: list[tuple[int, int]] = []
    for start, end in sorted((p.address & ~1, p.address + len(p.data) + 1 & ~1) for p in image.code):
        if spans and start <= spans[-1][1] + _NEIGHBOUR:
            spans[-1] = (spans[-1][0], max(end, spans[-1][1]))
        else:
            spans.append((start, end))
    return tuple(spans)


def function_ends(image: Image) -> Iterator[tuple[Symbol, int]]:
    """Every function with the address behind it; one without a size ends at the next, or with its code."""
    spans = code_spans(image)
    functions = image.functions
    for position, function in enumerate(functions):
        end = function.address + function.size
        if not function.size:
            end = next((last for first, last in spans if first <= function.address < last), end)
            if position + 1 < len(functions):
                end = min(end, functions[position + 1].address)
        yield function, end


def owners_at(
    code: tuple[tuple[int, int], ...], owned: Iterable[tuple[int, int, int]], others: int
) -> npt.NDArray[np.int16]:
    """The owner of each halfword of code.

    Args:
        owned: first address, first behind it and number of each owner.
        others: the number of what nobody owns.
    """
    pieces = []
    owned = tuple(owned)
    for start, end in code:
        piece = np.full((end - start) // 2, others, np.int16)
        for first, last, number in owned:
            if start <= first < end:
                piece[(first - start) // 2 : (min(last, end) - start + 1) // 2] = number
        pieces.append(piece)
    return np.concatenate(pieces) if pieces else np.zeros(0, np.int16)
