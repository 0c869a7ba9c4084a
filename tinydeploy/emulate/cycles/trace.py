"""What a traced run is asked for, and what it gives."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from tinydeploy.emulate.image import Image
from tinydeploy.targets import FlashTiming

Way = Literal["none", "reads", "addresses"]
"""How reads of the flash are seen: not at all, by a hook on reads, or by computing each load's address."""

BlockKey = tuple[int, int, int]
"""Number of the owner, address, size in bytes."""

NOBODY = -1


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
        code: first address of the code, and the first behind it.
        owner_at: owner of each halfword of the code; NOBODY goes on with whoever ran last.
        flash: first address of what lies in flash, and the first behind it.
        caches: None where no fetches and reads are counted.
    """

    owners: tuple[str, ...]
    first: int
    code: tuple[int, int]
    owner_at: npt.NDArray[np.int16]
    flash: tuple[int, int]
    caches: Caches | None


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


def make_plan(image: Image, model: str, flash: FlashTiming | None) -> Plan:
    """What to count of a linked model.

    A block belongs to the layer function that it lies in (``NAME_03_conv_2d``, compiler suffixes such as
    ``.part.0`` cut off) or to ``NAME_run``; code elsewhere, such as memcpy, a 64-bit multiplication or a
    shared kernel, belongs to whichever of these ran last.

    Args:
        flash: the flash whose caches are simulated, None for none.
    """
    pieces = [(piece.address, piece.address + len(piece.data)) for piece in image.code]
    start, end = min(first for first, _ in pieces), max(last for _, last in pieces)
    layer = re.compile(rf"({re.escape(model)}_\d+_[A-Za-z0-9_]+|{re.escape(model)}_run)(\..*)?")
    names: list[str] = [f"{model}_run"]
    owner_at = np.full((end - start + 1) // 2, NOBODY, np.int16)
    for position, function in enumerate(image.functions):
        match = layer.fullmatch(function.name)
        if match is None:
            continue
        if match.group(1) not in names:
            names.append(match.group(1))
        rest = image.functions[position + 1 :]
        size = function.size or ((rest[0].address if rest else end) - function.address)
        first = (function.address - start) // 2
        owner_at[first : first + (size + 1) // 2] = names.index(match.group(1))
    stored = [segment for segment in image.segments if not segment.writable]
    return Plan(
        owners=tuple(names),
        first=0,
        code=(start, end),
        owner_at=owner_at,
        flash=(min(s.address for s in stored), max(s.address + s.size for s in stored)),
        caches=None if flash is None else Caches.of(flash),
    )
