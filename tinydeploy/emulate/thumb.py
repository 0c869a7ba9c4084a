"""Thumb instructions: how long each is, and what they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tinydeploy.emulate.image import CodeRange, Image
from tinydeploy.emulate.toolchain import load_extra

_WIDE = 0xE800  # a first halfword from here on belongs to a 32-bit instruction


def length_at(code: bytes, position: int) -> int:
    """Length in bytes (2 or 4) of the instruction at ``position``."""
    return 4 if int.from_bytes(code[position : position + 2], "little") >= _WIDE else 2


def disassembler(*, v8: bool) -> Any:
    """A capstone disassembler for Thumb on an M-profile core, with operand details.

    Raises:
        MissingExtraError: capstone is not installed.
    """
    capstone = load_extra("capstone", "capstone")
    mode = capstone.CS_MODE_THUMB | capstone.CS_MODE_MCLASS | (capstone.CS_MODE_V8 if v8 else 0)
    engine = capstone.Cs(capstone.CS_ARCH_ARM, mode)
    engine.detail = True
    return engine


def decode(image: Image, *, v8: bool) -> Iterator[tuple[CodeRange, int, bytes, Any]]:
    """Every Thumb instruction of ``image``: its range, address, bytes and capstone's view.

    Capstone's view is None where it does not know the bytes. Decoding is resumed behind them, so that the
    state of an IT block is kept wherever the bytes allow it.
    """
    engine = disassembler(v8=v8)
    for piece in image.code:
        if not piece.usable:
            continue
        position = 0
        while position < len(piece.data):
            for insn in engine.disasm(piece.data[position:], piece.address + position):
                yield piece, insn.address, bytes(insn.bytes), insn
                position = insn.address - piece.address + insn.size
            if position < len(piece.data):
                length = length_at(piece.data, position)
                yield piece, piece.address + position, piece.data[position : position + length], None
                position += length
