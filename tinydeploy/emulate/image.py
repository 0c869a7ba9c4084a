"""Reads an ELF file: what is loaded where, which symbols there are, and which bytes are code."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tinydeploy.emulate.toolchain import load_extra
from tinydeploy.errors import DeployError

_MACHINES = ("ARM", "RISC-V")
_SHF_WRITE, _SHF_ALLOC, _SHF_EXECINSTR = 1, 2, 4
_PF_X, _PF_W = 1, 2


@dataclass(frozen=True)
class Symbol:
    """A function or object; ``address`` has no Thumb bit, ``section`` is the ELF section's index."""

    name: str
    address: int
    size: int
    section: int
    is_function: bool

    @property
    def base_name(self) -> str:
        """The name in the source, without what the compiler appends for a specialised copy."""
        return self.name.partition(".")[0]


@dataclass(frozen=True)
class Section:
    """An allocated section; ``stored`` says whether it takes up room in flash (it is not .bss)."""

    name: str
    index: int
    address: int
    size: int
    writable: bool
    stored: bool


@dataclass(frozen=True)
class Segment:
    """Bytes that the loader puts at ``address``; ``size`` may go past ``data``, with zeros.

    Attributes:
        executable: whether code may run there although it is writable; what is not writable always may.
        stored_at: where start-up code finds the bytes; not ``address`` for what it copies to RAM.
    """

    address: int
    data: bytes
    size: int
    writable: bool
    executable: bool = False
    stored_at: int | None = None


@dataclass(frozen=True)
class CodeRange:
    """Contiguous instructions between two mapping symbols; ``usable`` is false for Arm state."""

    section: int
    address: int
    data: bytes
    usable: bool


@dataclass(frozen=True)
class Image:
    """One ELF file, linked or relocatable (all addresses then count from their section's start).

    Attributes:
        machine: "ARM" or "RISC-V".
        global_pointer: what start-up code puts into GP on RISC-V, None where nothing was linked to use it.
    """

    path: Path
    machine: str
    segments: tuple[Segment, ...]
    sections: tuple[Section, ...]
    symbols: tuple[Symbol, ...]
    undefined: tuple[str, ...]
    code: tuple[CodeRange, ...]
    global_pointer: int | None = None

    def symbol(self, name: str) -> Symbol:
        """The function or object of that name.

        Raises:
            DeployError: there is none.
        """
        found = self._by_name.get(name)
        if found is None:
            raise DeployError(f"there is no symbol {name!r}", where=self.path.name)
        return found

    def has_symbol(self, name: str) -> bool:
        return name in self._by_name

    def locate(self, address: int, section: int | None = None) -> str:
        """``function+0x12`` for a code address; ``section`` is needed in a relocatable file.

        What the compiler appends to the name of a specialised copy (``.constprop.0``) is left out.
        """
        function = self.function_at(address, section)
        if function is None:
            return f"0x{address:08x}"
        return f"{function.base_name}+0x{address - function.address:x}"

    def function_at(self, address: int, section: int | None = None) -> Symbol | None:
        """The function that holds ``address``; one without a size reaches to the next."""
        functions = self.functions if section is None else self._by_section.get(section, ())
        index = bisect_right(functions, address, key=lambda symbol: symbol.address) - 1
        if index < 0:
            return None
        found = functions[index]
        return found if found.size == 0 or address < found.address + found.size else None

    @cached_property
    def functions(self) -> tuple[Symbol, ...]:
        """All functions by address; of several names at one address the longest, then the first by name."""
        ordered = sorted(
            (symbol for symbol in self.symbols if symbol.is_function),
            key=lambda symbol: (symbol.section, symbol.address, -symbol.size, symbol.name),
        )
        unique = {(symbol.section, symbol.address): symbol for symbol in reversed(ordered)}
        return tuple(sorted(unique.values(), key=lambda symbol: (symbol.address, symbol.section)))

    @cached_property
    def _by_section(self) -> dict[int, tuple[Symbol, ...]]:
        grouped: dict[int, list[Symbol]] = {}
        for function in self.functions:
            grouped.setdefault(function.section, []).append(function)
        return {section: tuple(functions) for section, functions in grouped.items()}

    @cached_property
    def _by_name(self) -> dict[str, Symbol]:
        return {symbol.name: symbol for symbol in self.symbols}


def read_image(path: Path) -> Image:
    """Reads a 32-bit little-endian ELF file of Arm or RISC-V.

    Raises:
        MissingExtraError: pyelftools is not installed.
        DeployError: the file is not such an ELF file.
    """
    elf_file = load_extra("elftools.elf.elffile", "pyelftools").ELFFile
    elf_error = load_extra("elftools.common.exceptions", "pyelftools").ELFError
    try:
        with path.open("rb") as stream:
            elf = elf_file(stream)
            machine = elf.get_machine_arch()
            if machine not in _MACHINES or not elf.little_endian or elf.elfclass != 32:
                fact = "this is not a little-endian 32-bit ELF file of Arm or RISC-V"
                raise DeployError(fact, where=str(path))
            symbols, undefined, marks = _read_symbols(elf)
            return Image(
                path=path,
                machine=machine,
                segments=tuple(_read_segments(elf)),
                sections=tuple(_read_sections(elf)),
                symbols=symbols,
                undefined=undefined,
                code=tuple(_read_code(elf, marks)),
                global_pointer=_global_pointer(elf),
            )
    except (elf_error, OSError) as error:
        raise DeployError(f"the ELF file cannot be read ({error})", where=str(path)) from error


def _read_segments(elf: Any) -> Iterator[Segment]:
    for segment in elf.iter_segments(type="PT_LOAD"):
        if segment["p_memsz"]:
            flags, data = segment["p_flags"], bytes(segment.data())
            writable, executable = bool(flags & _PF_W), bool(flags & _PF_X)
            address, size = segment["p_vaddr"], segment["p_memsz"]
            yield Segment(address, data, size, writable, executable, segment["p_paddr"])


def _read_sections(elf: Any) -> Iterator[Section]:
    for index, section in enumerate(elf.iter_sections()):
        if section["sh_flags"] & _SHF_ALLOC:
            yield Section(
                name=section.name,
                index=index,
                address=section["sh_addr"],
                size=section["sh_size"],
                writable=bool(section["sh_flags"] & _SHF_WRITE),
                stored=section["sh_type"] != "SHT_NOBITS",
            )


# $x may be followed by the architecture in words (RISC-V ELF psABI, mapping symbols).
_MARK = re.compile(r"\$([tda](\..*)?|x[a-z0-9_.]*)$")
Marks = dict[int, list[tuple[int, str]]]


def _read_symbols(elf: Any) -> tuple[tuple[Symbol, ...], tuple[str, ...], Marks]:
    """Functions and objects, names that are undefined, and the mapping symbols of each section."""
    table = elf.get_section_by_name(".symtab")
    symbols: list[Symbol] = []
    undefined: list[str] = []
    marks: Marks = {}
    for entry in table.iter_symbols() if table is not None else ():
        section, kind, value = entry["st_shndx"], entry["st_info"]["type"], entry["st_value"]
        if section == "SHN_UNDEF":
            undefined.extend([entry.name] if entry.name else [])
        elif not isinstance(section, int):
            continue
        elif _MARK.match(entry.name):
            marks.setdefault(section, []).append((value, entry.name[:2]))
        elif kind in ("STT_FUNC", "STT_OBJECT"):
            is_function = kind == "STT_FUNC"
            address = value & ~1 if is_function else value
            symbols.append(Symbol(entry.name, address, entry["st_size"], section, is_function))
    return tuple(symbols), tuple(undefined), marks


def _global_pointer(elf: Any) -> int | None:
    """The symbol that linkers of RISC-V set for it (RISC-V ELF psABI, global-pointer relaxation)."""
    table = elf.get_section_by_name(".symtab")
    entries = table.get_symbol_by_name("__global_pointer$") if table is not None else None
    return int(entries[0]["st_value"]) if entries else None


def _read_code(elf: Any, marks: Marks) -> Iterator[CodeRange]:
    for index, section in enumerate(elf.iter_sections()):
        flags, size = section["sh_flags"], section["sh_size"]
        if not (flags & _SHF_EXECINSTR and flags & _SHF_ALLOC and size):
            continue
        base = section["sh_addr"]
        # The later of two marks at one place holds: the earlier one belonged to an empty piece.
        bounds = dict(sorted(marks.get(index, []), key=lambda mark: mark[0]))
        # Without marks nobody can tell code from constants. What runs there on an M-profile core is Thumb;
        # older assemblers for RISC-V write no marks and put no constants into code.
        bounds = bounds or {base: "$x" if elf.get_machine_arch() == "RISC-V" else "$t"}
        starts = sorted(bounds)
        data = bytes(section.data())
        for start, end in zip(starts, [*starts[1:], base + size], strict=True):
            if bounds[start] != "$d" and start < end:
                yield CodeRange(index, start, data[start - base : end - base], bounds[start] != "$a")
