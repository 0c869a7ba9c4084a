"""ELF files that are not what they say: each ends in a message, never in a traceback or a crash."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from emulate_support import NO_GCC
from firmware_support import link_app
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinydeploy.emulate.elf_check import MAX_MEMORY_BYTES
from tinydeploy.emulate.firmware import entry_symbol, on_board, read_firmware
from tinydeploy.emulate.firmware_run import Call, run_firmware
from tinydeploy.errors import DeployError
from tinydeploy.targets import load_target

pytestmark = NO_GCC
BOARD = load_target("nucleo-l4r5zi")
SLOW_FILES = (HealthCheck.function_scoped_fixture, HealthCheck.too_slow)
HEADER_BYTES, SEGMENT_BYTES = 52, 32


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return link_app(tmp_path_factory.mktemp("good")).read_bytes()


def refused(folder: Path, data: bytes, message: str) -> None:
    path = folder / "bad.elf"
    path.write_bytes(data)
    with pytest.raises(DeployError, match=message) as caught:
        read_firmware(path)
    assert str(path) in caught.value.where


def patched(data: bytes, at: int, layout: str, value: int) -> bytes:
    changed = bytearray(data)
    struct.pack_into(layout, changed, at, value)
    return bytes(changed)


HEADER_CASES = [
    (4, "<B", 2, "not a 32-bit little-endian ELF file"),
    (5, "<B", 2, "not a 32-bit little-endian ELF file"),
    (16, "<H", 1, "an object file, not a linked program"),
    (16, "<H", 3, "position-independent file, not a linked program"),
    (18, "<H", 62, "an ELF file for machine 62"),
    (18, "<H", 94, "an ELF file for machine 94"),
    (28, "<I", 0xFFFF_FFF0, "its program headers lie outside it"),
    (32, "<I", 0xFFFF_FFF0, "its section headers lie outside it"),
    (44, "<H", 0, "has 0 program headers"),
    (44, "<H", 0xFFFF, "has 65535 program headers"),
    (48, "<H", 0, "has no sections, and so no symbols"),
    (48, "<H", 0xFFFF, "has 65535 sections"),
    (50, "<H", 0xFFF0, "its section headers lie outside it"),
]


@pytest.mark.parametrize(("at", "layout", "value", "message"), HEADER_CASES)
def test_headers(good: bytes, at: int, layout: str, value: int, message: str, tmp_path: Path) -> None:
    refused(tmp_path, patched(good, at, layout, value), message)


SEGMENT_CASES = [
    (4, 0xFFFF_0000, "segment 0 lies outside it"),
    (8, 0xFFFF_FF00, "does not fit the address space"),
    (16, 0x7FFF_FFFF, "segment 0 lies outside it"),
    (20, MAX_MEMORY_BYTES + 1, "bytes of memory; the limit is"),
]


@pytest.mark.parametrize(("field", "value", "message"), SEGMENT_CASES)
def test_segments(good: bytes, field: int, value: int, message: str, tmp_path: Path) -> None:
    refused(tmp_path, patched(good, HEADER_BYTES + field, "<I", value), message)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not an ELF file"),
        (b"\x7fELF", "cut off in its header"),
        (b"MZ" + bytes(100), "not an ELF file"),
    ],
)
def test_other_files(data: bytes, message: str, tmp_path: Path) -> None:
    refused(tmp_path, data, message)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DeployError, match="cannot be read"):
        read_firmware(tmp_path / "none.elf")


def test_a_file_without_symbols(good: bytes, tmp_path: Path) -> None:
    changed = good.replace(b".symtab\0", b".nothing"[:8])
    refused(tmp_path, changed, "no symbols of functions")


@given(st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=SLOW_FILES)
def test_a_file_that_is_cut_off(good: bytes, tmp_path: Path, data: st.DataObject) -> None:
    size = data.draw(st.integers(0, len(good) - 1))
    (tmp_path / "cut.elf").write_bytes(good[:size])
    with pytest.raises(DeployError):
        read_firmware(tmp_path / "cut.elf")


@given(st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=SLOW_FILES)
def test_damaged_bytes_end_in_a_message_or_in_a_run(good: bytes, tmp_path: Path, data: st.DataObject) -> None:
    sections = struct.unpack_from("<I", good, 32)[0]
    places = st.one_of(
        st.integers(0, HEADER_BYTES + 4 * SEGMENT_BYTES),
        st.integers(sections, len(good) - 1),
        st.integers(0, len(good) - 1),
    )
    changed = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(places)] = data.draw(st.sampled_from((0, 1, 2, 0x7F, 0x80, 0xFF)))
    (tmp_path / "damaged.elf").write_bytes(changed)
    try:
        linked = on_board(read_firmware(tmp_path / "damaged.elf"), BOARD.board)
        assert BOARD.board is not None
        entry = entry_symbol(linked.image, "calls")
        run_firmware(BOARD.core, linked, BOARD.board.flash, Call(entry, limit=10_000))
    except DeployError as error:
        assert str(error)
