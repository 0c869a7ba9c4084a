"""Checks of an ELF file from outside, before anything in it is followed: kind, machine, places and sizes."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from tinydeploy.errors import DeployError

MAX_FILE_BYTES = 128 << 20
MAX_MEMORY_BYTES = 256 << 20
MAX_SECTIONS = 4096
MAX_SEGMENTS = 256
MAX_SYMBOLS = 200_000

MAGIC = b"\x7fELF"
_HEADER = struct.Struct("<16sHHIIIIIHHHHHH")
_SEGMENT = struct.Struct("<8I")
_SECTION = struct.Struct("<10I")
_SYMBOL_BYTES = 16
_MACHINES = (40, 243)  # EM_ARM, EM_RISCV
_KINDS = {1: "an object file", 3: "a shared or position-independent file", 4: "a core dump"}
_PT_LOAD, _SHT_SYMTAB, _SHT_NOBITS = 1, 2, 8
_SPACE = 1 << 32


@dataclass(frozen=True)
class _Header:
    kind: int
    machine: int
    segments_at: int
    sections_at: int
    segment_bytes: int
    segments: int
    section_bytes: int
    sections: int
    names: int


def is_elf(path: Path) -> bool:
    """Whether a file is there and starts as ELF files do."""
    try:
        with path.open("rb") as stream:
            return stream.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def check_elf(path: Path) -> None:
    """Refuses what is not a linked 32-bit little-endian program of Arm or RISC-V, whole in the file.

    Raises:
        DeployError: what is wrong with it.
    """
    data = _read(path)
    header = _header(data, str(path))
    _check_segments(data, header, str(path))
    _check_sections(data, header, str(path))


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise DeployError(f"has {size:,} bytes; the limit is {MAX_FILE_BYTES:,}", where=str(path))
        return path.read_bytes()
    except OSError as error:
        raise DeployError(f"the file cannot be read ({error.strerror})", where=str(path)) from error


def _header(data: bytes, where: str) -> _Header:
    if data[: len(MAGIC)] != MAGIC:
        raise DeployError("is not an ELF file", where=where)
    if len(data) < _HEADER.size:
        raise DeployError("the ELF file is cut off in its header", where=where)
    if data[4] != 1 or data[5] != 1:
        fact = "is not a 32-bit little-endian ELF file"
        raise DeployError(fact, where=where, hint="name the file that the cross compiler linked")
    fields = _HEADER.unpack_from(data)
    kind, machine = fields[1], fields[2]
    header = _Header(kind, machine, fields[5], fields[6], *fields[9:14])
    if machine not in _MACHINES:
        fact = f"is an ELF file for machine {machine}, and the targets are Arm Cortex-M and RISC-V"
        raise DeployError(fact, where=where)
    if kind != 2:
        what = _KINDS.get(kind, f"of type {kind}")
        raise DeployError(f"is {what}, not a linked program", where=where, hint="name the linked .elf")
    return header


def _check_segments(data: bytes, header: _Header, where: str) -> None:
    count = header.segments
    if not 0 < count <= MAX_SEGMENTS:
        raise DeployError(f"has {count} program headers; 1 to {MAX_SEGMENTS} are allowed", where=where)
    if header.segment_bytes != _SEGMENT.size or header.segments_at + count * _SEGMENT.size > len(data):
        raise DeployError("the ELF file is cut off: its program headers lie outside it", where=where)
    total = 0
    for number in range(count):
        fields = _SEGMENT.unpack_from(data, header.segments_at + number * _SEGMENT.size)
        kind, offset, address, _, in_file, in_memory, _, _ = fields
        if kind != _PT_LOAD:
            continue
        if offset + in_file > len(data):
            raise DeployError(f"the ELF file is cut off: segment {number} lies outside it", where=where)
        if in_file > in_memory or address + in_memory > _SPACE:
            fact = (
                f"segment {number} does not fit the address space: 0x{in_memory:x} bytes at 0x{address:08x}"
            )
            raise DeployError(fact, where=where)
        total += in_memory
    if total > MAX_MEMORY_BYTES:
        raise DeployError(f"takes {total:,} bytes of memory; the limit is {MAX_MEMORY_BYTES:,}", where=where)
    if total == 0:
        raise DeployError("has nothing that is loaded", where=where)


def _check_sections(data: bytes, header: _Header, where: str) -> None:
    count = header.sections
    if count > MAX_SECTIONS:
        raise DeployError(f"has {count} sections; the limit is {MAX_SECTIONS}", where=where)
    if count == 0 or header.section_bytes != _SECTION.size:
        hint = "link without --strip-all; the file needs its symbols"
        raise DeployError("has no sections, and so no symbols", where=where, hint=hint)
    if header.sections_at + count * _SECTION.size > len(data) or header.names >= count:
        raise DeployError("the ELF file is cut off: its section headers lie outside it", where=where)
    for number in range(count):
        fields = _SECTION.unpack_from(data, header.sections_at + number * _SECTION.size)
        kind, address, offset, size, link, entry = (fields[i] for i in (1, 3, 4, 5, 6, 9))
        if kind not in (0, _SHT_NOBITS) and offset + size > len(data):
            raise DeployError(f"the ELF file is cut off: section {number} lies outside it", where=where)
        if address + size > _SPACE:
            raise DeployError(f"section {number} does not fit the address space", where=where)
        if kind != _SHT_SYMTAB:
            continue
        if entry != _SYMBOL_BYTES or size > MAX_SYMBOLS * _SYMBOL_BYTES or link >= count:
            fact = f"the symbol table is damaged or has more than {MAX_SYMBOLS:,} entries"
            raise DeployError(fact, where=where)
