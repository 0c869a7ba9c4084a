"""A firmware that somebody else linked: its memory after start-up, and where there is room for a stack."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tinydeploy.emulate.cpu import Layout
from tinydeploy.emulate.elf_check import check_elf
from tinydeploy.emulate.image import CodeRange, Image, Segment, Symbol, read_image
from tinydeploy.errors import DeployError
from tinydeploy.targets import Board
from tinydeploy.toml_file import nearest

STACK_BYTES = 1 << 20
_PAGE = 0x1000
_BARE_RAM = 1 << 20  # for a heap behind the data of a program on a bare core, whose RAM nobody knows
# What is RAM whatever the flags of a segment say: Arm's region; on RISC-V, where each chip has its own, that
# of the RP2350 (pico-sdk, memmap_default.ld) and the ESP32-C3 for data and for code (ESP-IDF, memory.ld.in).
_RAM = {
    "ARM": ((0x2000_0000, 0x4000_0000),),
    "RISC-V": ((0x2000_0000, 0x2008_2000), (0x3FC8_0000, 0x3FCE_0000), (0x4037_C000, 0x403E_0000)),
}
_CLUSTER = 1 << 26
# Stretches in which chips have nothing, as a rule; the first that is free is taken.
_RETURN_PLACES = tuple(range(0x1EFF_0000, 0x1800_0000, -0x0100_0000))
_STACK_PLACES = tuple(range(0x3E00_0000, 0x2800_0000, -0x0100_0000))


@dataclass(frozen=True)
class Linked:
    """A linked firmware as it is after start-up.

    Attributes:
        image: its contents; what is writable lies in RAM, all else in flash.
        layout: the memory around it.
        flash: first address of what lies in the board's flash, and the first behind it.
        beyond: what lies in flash outside that stretch, such as a second flash memory.
    """

    image: Image
    layout: Layout
    flash: tuple[int, int]
    beyond: tuple[Segment, ...]

    @property
    def flash_bytes(self) -> int:
        """Bytes of all sections that take up room in flash, the values of initialised data included."""
        return sum(section.size for section in self.image.sections if section.stored)

    @property
    def static_ram_bytes(self) -> int:
        """Bytes of all sections in RAM, a heap or stack that the linker script reserves included."""
        return sum(
            section.size
            for section in self.image.sections
            if any(_holds(s, section.address, section.size) for s in self.image.segments if s.writable)
        )


def read_firmware(path: Path) -> Linked:
    """Reads a linked ELF file of Arm or RISC-V without trust.

    Raises:
        DeployError: it is none, it is cut off, or its sizes are beyond any microcontroller's.
        MissingExtraError: pyelftools is not installed.
    """
    check_elf(path)
    try:
        image = read_image(path)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, AssertionError) as error:
        # The reader follows links between sections that no check before it has followed.
        raise DeployError(f"the ELF file is damaged ({error})", where=str(path)) from error
    if not image.functions:
        hint = "link without --strip-all"
        raise DeployError("has no symbols of functions", where=str(path), hint=hint)
    segments = tuple(_placed(segment, _RAM[image.machine]) for segment in image.segments)
    return _laid_out(replace(image, segments=segments), None)


def on_board(linked: Linked, board: Board | None) -> Linked:
    """The same firmware with the RAM of a board around its data, for a heap."""
    return _laid_out(linked.image, board)


def entry_symbol(image: Image, name: str) -> Symbol:
    """The function of that name.

    Raises:
        DeployError: there is none, there are several, or it is in Arm state.
    """
    where = str(image.path)
    found = {s.address: s for s in image.symbols if s.is_function and s.name == name}
    if not found:
        if any(s.name == name for s in image.symbols):
            raise DeployError(f"{name!r} is data, not a function", where=where)
        guess = nearest(name, [function.name for function in image.functions])
        hint = f"{guess}a static function may have been inlined: keep it with __attribute__((noinline, used))"
        raise DeployError(f"there is no function {name!r}", where=where, hint=hint)
    if len(found) > 1:
        places = ", ".join(f"0x{address:08x}" for address in sorted(found))
        hint = "static functions of several files share the name; give yours a name of its own"
        raise DeployError(f"there are {len(found)} functions {name!r} ({places})", where=where, hint=hint)
    (symbol,) = found.values()
    piece = piece_of(image, symbol.address)
    if piece is None:
        raise DeployError(f"{name!r} at 0x{symbol.address:08x} does not lie in code", where=where)
    if not piece.usable:
        raise DeployError(f"{name!r} is Arm code, and Cortex-M cores run Thumb alone", where=where)
    return symbol


def piece_of(image: Image, address: int) -> CodeRange | None:
    """The piece of code that an address lies in."""
    return next((p for p in image.code if p.address <= address < p.address + len(p.data)), None)


def executed_code(image: Image, blocks: Iterable[tuple[int, int]]) -> Image:
    """The image with no code but the functions that blocks (address, size) ran in.

    Reading instructions is slow, and a firmware holds much that a call never comes to.
    """
    spans: set[tuple[int, int]] = set()
    for address, size in blocks:
        function = image.function_at(address)
        if function is not None and function.size:
            spans.add((function.address, function.address + function.size))
        else:
            spans.add((address, address + size))
    # Blocks of code without a symbol may overlap each other, functions do not.
    ordered = sorted(spans)
    starts = [first for first, _ in ordered]
    pieces = []
    for piece in image.code:
        end = piece.address + len(piece.data)
        position = max(0, bisect_right(starts, piece.address) - 1)
        done = piece.address
        while position < len(ordered) and ordered[position][0] < end:
            start, stop = max(ordered[position][0], done), min(ordered[position][1], end)
            if start < stop:
                data = piece.data[start - piece.address : stop - piece.address]
                pieces.append(CodeRange(piece.section, start, data, piece.usable))
                done = stop
            position += 1
    return replace(image, code=tuple(pieces))


def _placed(segment: Segment, regions: Sequence[tuple[int, int]]) -> Segment:
    """The segment as flash or RAM.

    Flags alone do not tell: a linker makes a segment writable that holds code and `.init_array`. RAM is what
    start-up code copies or clears, data that can be written, and what lies in the regions of RAM.
    """
    copied = segment.stored_at not in (None, segment.address) or not segment.data
    in_ram = _region(segment.address, regions) is not None
    is_data = segment.writable and not segment.executable
    return replace(segment, writable=copied or in_ram or is_data, executable=True)


def _laid_out(image: Image, board: Board | None) -> Linked:
    ram = [segment for segment in image.segments if segment.writable]
    rooms: list[tuple[int, int]] = []
    room_bytes = board.ram_bytes if board is not None else 0
    for segment in ram:
        start = segment.address // _PAGE * _PAGE
        size = max(segment.size + (_BARE_RAM if board is None else 0), room_bytes)
        region = _region(start, _RAM[image.machine])
        if region is not None and not rooms:
            rooms.append((start, -(-min(size, region[1] - start) // _PAGE) * _PAGE))
    taken = [(s.address, s.address + s.size + _PAGE) for s in image.segments]
    taken += [(start, start + size) for start, size in rooms]
    stack = _free(_STACK_PLACES, STACK_BYTES, taken, str(image.path))
    back = _free(_RETURN_PLACES, _PAGE, taken, str(image.path))
    flash, beyond = _flash_of(image)
    return Linked(image, Layout(back, stack, STACK_BYTES, tuple(rooms)), flash, beyond)


def _region(address: int, regions: Sequence[tuple[int, int]]) -> tuple[int, int] | None:
    return next((region for region in regions if region[0] <= address < region[1]), None)


def _free(places: Iterable[int], size: int, taken: Iterable[tuple[int, int]], where: str) -> int:
    spans = tuple(taken)
    for place in places:
        if all(place + size + _PAGE <= start or end + _PAGE <= place for start, end in spans):
            return place
    raise DeployError("leaves no room for a stack in the address space", where=where)


def _flash_of(image: Image) -> tuple[tuple[int, int], tuple[Segment, ...]]:
    """The stretch of flash that most bytes in flash lie in, and what lies in flash elsewhere."""
    stored = sorted((s for s in image.segments if not s.writable), key=lambda s: s.address)
    clusters: list[list[Segment]] = []
    for segment in stored:
        if clusters and segment.address + segment.size - clusters[-1][0].address <= _CLUSTER:
            clusters[-1].append(segment)
        else:
            clusters.append([segment])
    if not clusters:
        return (0, 0), ()
    largest = max(clusters, key=lambda cluster: sum(s.size for s in cluster))
    span = (largest[0].address, max(s.address + s.size for s in largest))
    return span, tuple(s for s in stored if s not in largest)


def _holds(segment: Segment, address: int, size: int) -> bool:
    return segment.address <= address and address + size <= segment.address + segment.size
