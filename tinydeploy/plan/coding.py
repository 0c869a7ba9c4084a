"""Which codebook indices are Huffman-coded in flash and decoded into RAM at start-up: those that pay.

S. Han, H. Mao, W. J. Dally, "Deep Compression" (ICLR 2016), section 4. Their decoder's code is of no account
there; on a microcontroller it is what a small network has to earn first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

STREAM, WORDS = "stream", "words"
"""How a kernel reads indices: side by side, or in the words of the DSP extension."""

DECODER_BYTES = {STREAM: 168, WORDS: 136}
"""Machine code of each decoder, at most, as GCC 12.2 makes it for Armv6-M and Armv7E-M."""

START_BYTES, CALL_BYTES = 28, 26
"""Of NAME_init and the question whether it ran; of its call for a layer, and of the address in RAM."""

STACK_BYTES = 1024
"""What is left to the stack of RAM in which the arena and decoded indices have to find their place."""


@dataclass(frozen=True)
class Codable:
    """Indices of a layer that could be coded.

    Attributes:
        layout: STREAM or WORDS.
        packed, coded: bytes in flash without and with the code.
        ram: bytes that the decoded indices take.
    """

    layout: str
    packed: int
    coded: int
    ram: int

    @property
    def saved(self) -> int:
        """Bytes of flash, without the decoder."""
        return self.packed - self.coded - CALL_BYTES


def code_bytes(chosen: Sequence[Codable]) -> int:
    """Machine code that decoding takes, calls included; 0 where nothing is coded."""
    layouts = {c.layout for c in chosen}
    return sum(DECODER_BYTES[x] for x in layouts) + (START_BYTES if chosen else 0) + CALL_BYTES * len(chosen)


def saved_bytes(chosen: Sequence[Codable]) -> int:
    """Bytes of flash that coding these saves, its code included."""
    return sum(c.packed - c.coded for c in chosen) - code_bytes(chosen)


def worth_coding(found: Sequence[Codable], ram: int | None = None) -> tuple[int, ...]:
    """The numbers of those that are coded: the most flash that a greedy choice saves, or none.

    Each has to save flash by itself, and all together more than the decoders take. Those that save most a
    byte of RAM come first.

    Args:
        ram: bytes for all decoded indices; None for any.
    """
    best: tuple[int, ...] = ()
    for layouts in ((STREAM,), (WORDS,), (STREAM, WORDS)):
        chosen = _greedy(found, layouts, ram)
        if saved_bytes([found[i] for i in chosen]) > max(0, saved_bytes([found[i] for i in best])):
            best = chosen
    return best


def _greedy(found: Sequence[Codable], layouts: tuple[str, ...], ram: int | None) -> tuple[int, ...]:
    left, chosen = ram, []
    ranked = sorted(range(len(found)), key=lambda i: (-found[i].saved / max(found[i].ram, 1), i))
    for i in ranked:
        c = found[i]
        if c.layout in layouts and c.saved > 0 and (left is None or c.ram <= left):
            chosen.append(i)
            left = None if left is None else left - c.ram
    return tuple(sorted(chosen))
