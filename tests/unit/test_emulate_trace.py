"""Traces of a run: C and Python count the same, caches are textbook ones, a disturbed run is noticed."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from emulate_support import COMPILERS, CORES, PROJECT, TINY, odd_firmware, tiny_expected, tiny_input
from hypothesis import given
from hypothesis import strategies as st

from tinydeploy.emulate import machine
from tinydeploy.emulate.build import Firmware, build
from tinydeploy.emulate.cpu import Cpu
from tinydeploy.emulate.cycles import meter, native, tracer
from tinydeploy.emulate.cycles.cache import Cache
from tinydeploy.emulate.cycles.loads import find_loads
from tinydeploy.emulate.cycles.native import NativeTracer, load_library
from tinydeploy.emulate.cycles.pure import PureTracer
from tinydeploy.emulate.cycles.trace import Caches, Plan, Trace, Way, make_plan
from tinydeploy.emulate.machine import Machine
from tinydeploy.emulate.memory import ModelMemory, buffer_bytes
from tinydeploy.emulate.toolchain import Toolchain, find_toolchain, native_toolchain
from tinydeploy.errors import DeployError
from tinydeploy.targets import FlashTiming

LIBRARY = load_library()
NEEDS_LIBRARY = pytest.mark.skipif(LIBRARY is None, reason="there is no native compiler")
FLASH = FlashTiming(5, 8, 64, 32, prefetch=False)
UNIFIED = FlashTiming(5, 8, 64, 64, prefetch=False, unified_cache=True)
BARE = FlashTiming(2, 16, 0, 0, prefetch=False)
SIXTEEN = bytes(range(16))


class Textbook:
    """Least recently used: the age of each line is kept as a number, and nothing is clever."""

    def __init__(self, lines: int) -> None:
        self.lines, self.used, self.time = lines, dict[int, int](), 0

    def misses(self, line: int) -> bool:
        self.time += 1
        missed = line not in self.used
        if self.lines == 0:
            return True
        if missed and len(self.used) == self.lines:
            oldest = min(self.used, key=lambda held: self.used[held])
            del self.used[oldest]
        self.used[line] = self.time
        return missed


@given(st.integers(0, 5), st.lists(st.integers(0, 8), max_size=80))
def test_the_cache_is_that_of_the_textbook(lines: int, accesses: list[int]) -> None:
    cache, book = Cache(lines), Textbook(lines)
    assert [cache.misses(line) for line in accesses] == [book.misses(line) for line in accesses]


# Code from 0x100 to 0x200, of which the second half belongs to the second owner; all of it is flash.
def small_plan(caches: Caches | None) -> Plan:
    owners = np.full(128, -1, np.int16)
    owners[64:96] = 1
    owners[:32] = 0
    return Plan(("zero", "one"), 0, ((0x100, 0x200),), owners, (0x100, 0x200), caches)


class FakeCpu:
    """Keeps the hooks that a tracer asks for, to be called by a test."""

    def __init__(self) -> None:
        self.block: Any = None
        self.read: Any = None

    def on_block(self, hook: Any) -> None:
        self.block = lambda address, size: hook(None, address, size, None)

    def on_read(self, _start: int, _end: int, hook: Any) -> None:
        self.read = lambda address, size: hook(None, 16, address, size, 0, None)

    def hook_native(self, kind: str, function: Any, user: int, *_range: int) -> None:
        pointer, word = ctypes.c_void_p, ctypes.c_uint32
        address = ctypes.c_uint64
        if kind == "block":
            function.argtypes = (pointer, address, word, pointer)
            self.block = lambda at, size: function(None, at, size, user)
        else:
            function.argtypes = (pointer, ctypes.c_int, address, ctypes.c_int, ctypes.c_int64, pointer)
            self.read = lambda at, size: function(None, 16, at, size, 0, user)


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("block"), st.integers(0x70, 0x108).map(lambda n: 2 * n), st.integers(1, 12)),
        st.tuples(st.just("read"), st.integers(0xF0, 0x210), st.sampled_from((1, 2, 4))),
    ),
    max_size=120,
)
SHAPES = st.one_of(
    st.none(),
    st.builds(Caches, st.sampled_from((4, 8, 16)), st.integers(1, 6), st.integers(0, 5), st.booleans()),
)


def replay(cpu: FakeCpu, found: PureTracer | NativeTracer, events: list[tuple[str, int, int]]) -> Trace:
    found.start()
    for kind, address, size in events:
        if kind == "block":
            cpu.block(address, 2 * size)
        else:
            cpu.read(address, size)
    return found.trace()


@NEEDS_LIBRARY
@given(SHAPES, EVENTS)
def test_c_and_python_count_the_same(shape: Caches | None, events: list[tuple[str, int, int]]) -> None:
    way: Way = "none" if shape is None else "reads"
    if shape is None:
        events = [event for event in events if event[0] == "block"]
    traces = []
    for make in (PureTracer, lambda *args: NativeTracer(LIBRARY, *args)):
        cpu: Any = FakeCpu()
        found = make(cpu, small_plan(shape), way)
        traces += [replay(cpu, found, events), replay(cpu, found, events)]
    assert traces[0] == traces[1] == traces[2] == traces[3]


@given(st.integers(1, 4), EVENTS)
def test_lines_of_code_are_counted_as_by_hand(lines: int, events: list[tuple[str, int, int]]) -> None:
    cpu: Any = FakeCpu()
    trace = replay(cpu, PureTracer(cpu, small_plan(Caches(8, lines, 0, False)), "reads"), events)
    book, misses, last = Textbook(lines), 0, None
    for kind, address, size in events:
        inside = address >= 0x100 and address + 2 * size <= 0x200
        if kind != "block" or not inside:
            continue
        touched = sorted({byte // 8 for byte in range(address, address + 2 * size)})
        for line in touched:
            misses += line != last and book.misses(line)
            last = line
    assert sum(count.fetch_misses for count in trace.flash) == misses


@NEEDS_LIBRARY
def test_the_table_of_blocks_grows() -> None:
    cpu: Any = FakeCpu()
    found = NativeTracer(LIBRARY, cpu, small_plan(None), "none")
    cpu2: Any = FakeCpu()
    events = [("block", 0x1000 + 8 * n, 1 + n % 3) for n in range(20_000)] * 2
    assert replay(cpu, found, events) == replay(cpu2, PureTracer(cpu2, small_plan(None), "none"), events)


@pytest.fixture(scope="module", params=COMPILERS)
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Firmware:
    core, out = CORES["cortex-m4"], tmp_path_factory.mktemp("tiny")
    return build(PROJECT, TINY, core, find_toolchain(core, request.param), out)


CONDITIONAL = """
    static const int8_t table[64] = {3, 1, 4, 1, 5, 9, 2, 6};
    for (int i = 0; i < 16; i++) {
        int value = input[i];
        __asm__ volatile("cmp %0, #7\\n it gt\\n ldrsbgt %0, [%1, %0]\\n add %0, %0, #1"
                         : "+r"(value) : "r"(table) : "cc");
        output[i] = (int8_t)value;
    }
"""


@pytest.fixture(scope="module")
def conditional(tmp_path_factory: pytest.TempPathFactory) -> Firmware:
    return odd_firmware(tmp_path_factory.mktemp("conditional"), CONDITIONAL)


def traced(firmware: Firmware, inputs: bytes, flash: FlashTiming, way: Way, *, pure: bool) -> Trace:
    """A run of the model; its outputs have to be those of a run without hooks."""
    image = firmware.image
    memory = ModelMemory(firmware, Cpu(firmware.core, image, buffer_bytes(firmware.abi)))
    plan, loads = make_plan(image, firmware.abi.name, flash), find_loads(image, v8=False)
    if pure:
        found: PureTracer | NativeTracer = PureTracer(memory.cpu, plan, way, loads)
    else:
        found = NativeTracer(LIBRARY, memory.cpu, plan, way, loads)
    arguments, places = memory.prepare([inputs], "arena", 0, 0)
    found.start()
    assert memory.cpu.call(memory.abi.run_symbol, arguments, 60.0) == 0
    output = memory.cpu.read(places[0], firmware.abi.output_bytes[0])
    if way == "addresses" or firmware.abi is TINY:
        assert output == Machine(firmware).run([inputs]).outputs[0]
    return found.trace()


@NEEDS_LIBRARY
@pytest.mark.parametrize("flash", [FLASH, UNIFIED, BARE], ids=["two caches", "one cache", "none"])
def test_every_way_sees_the_same(tiny: Firmware, flash: FlashTiming) -> None:
    ways: list[Way] = ["reads", "addresses"]
    traces = [traced(tiny, tiny_input(), flash, way, pure=pure) for way in ways for pure in (True, False)]
    assert traces[0] == traces[1] == traces[2] == traces[3]
    assert sum(count.reads for count in traces[0].flash) > 500


@NEEDS_LIBRARY
def test_a_conditional_load_is_counted_only_where_it_runs(conditional: Firmware) -> None:
    traces = [traced(conditional, SIXTEEN, BARE, "addresses", pure=pure) for pure in (True, False)]
    assert traces[0] == traces[1]
    # Of the inputs 0 to 15, eight are above 7; the address of the table is one read more.
    assert 8 <= sum(count.reads for count in traces[0].flash) <= 8 + 2


def test_taken_branches_are_those_that_do_not_fall_through(tiny: Firmware) -> None:
    trace = traced(tiny, tiny_input(), FLASH, "reads", pure=True)
    assert all(0 <= taken <= times for times, taken in trace.blocks.values())
    assert sum(taken for _, taken in trace.blocks.values()) > 100


def total_cycles(firmware: Firmware, inputs: bytes) -> meter.CycleCount:
    run = Machine(firmware, flash=FLASH).run([inputs], count=True, cycles=True)
    assert run.faults == ()
    assert run.cycles is not None
    return run.cycles


def test_without_a_native_compiler_the_figures_are_the_same(
    tiny: Firmware, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = total_cycles(tiny, tiny_input())
    monkeypatch.setattr(tracer, "load_library", lambda: None)
    assert total_cycles(tiny, tiny_input()) == first
    assert first.total is not None


@pytest.fixture
def fresh_library() -> Iterator[None]:
    load_library.cache_clear()
    yield
    load_library.cache_clear()


@pytest.mark.usefixtures("fresh_library")
def test_a_compiler_that_fails_is_done_without(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    broken = Toolchain("host", ("false",), "false 1.0")
    monkeypatch.setattr(native, "native_toolchain", lambda: broken)
    assert load_library() is None


@pytest.mark.usefixtures("fresh_library")
def test_no_compiler_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> Toolchain:
        raise DeployError("there is no compiler")

    monkeypatch.setattr(native, "native_toolchain", none)
    assert load_library() is None


@pytest.mark.usefixtures("fresh_library")
def test_it_can_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(native.DISABLE_VARIABLE, "1")
    assert load_library() is None


@NEEDS_LIBRARY
@pytest.mark.usefixtures("fresh_library")
def test_the_callbacks_are_compiled_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert load_library() is not None
    built = list(tmp_path.rglob("*.so"))
    assert len(built) == 1
    written = built[0].stat().st_mtime_ns
    load_library.cache_clear()
    assert load_library() is not None
    assert [path.stat().st_mtime_ns for path in tmp_path.rglob("*.so")] == [written]


@NEEDS_LIBRARY
def test_a_file_that_others_can_write_is_not_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    built = native._compiled(native_toolchain())
    good = built.read_bytes()
    built.write_bytes(b"something else")
    built.chmod(0o666)
    assert native._compiled(native_toolchain()).read_bytes() == good
    assert built.stat().st_mode & 0o022 == 0


class Disturbing:
    """A tracer whose hooks change what is counted, for the ways in `bad`."""

    def __init__(self, bad: tuple[str, ...]) -> None:
        self.bad, self.asked = bad, list[str]()

    def __call__(self, cpu: Cpu, plan: Plan, way: Way = "none", loads: Any = ()) -> Any:
        self.asked.append(way)
        found = tracer.make_tracer(cpu, plan, way, loads)
        if way not in self.bad:
            return found

        class Changed:
            start = found.start

            def trace(self) -> Trace:
                trace = found.trace()
                key = next(iter(trace.blocks))
                return replace(trace, blocks={k: v for k, v in trace.blocks.items() if k != key})

        return Changed()


def test_a_disturbed_run_is_noticed_and_another_way_taken(
    tiny: Firmware, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = total_cycles(tiny, tiny_input())
    order = _ways(monkeypatch, tiny, ())
    bad = Disturbing(tuple(order[:1]))
    monkeypatch.setattr(machine, "make_tracer", bad)
    assert total_cycles(tiny, tiny_input()) == expected
    assert len(bad.asked) == 2


def test_where_every_way_disturbs_there_is_no_figure(tiny: Firmware, monkeypatch: pytest.MonkeyPatch) -> None:
    _ways(monkeypatch, tiny, ("reads", "addresses"))
    count = total_cycles(tiny, tiny_input())
    assert count.total is None
    assert "so there is no figure" in count.notes[0]


def _ways(monkeypatch: pytest.MonkeyPatch, firmware: Firmware, bad: tuple[str, ...]) -> list[str]:
    disturbing = Disturbing(bad)
    monkeypatch.setattr(machine, "make_tracer", disturbing)
    total_cycles(firmware, tiny_input())
    return disturbing.asked


def test_code_with_conditional_loads_is_not_run_under_a_hook_on_reads(
    conditional: Firmware, monkeypatch: pytest.MonkeyPatch
) -> None:
    disturbing = Disturbing(())
    monkeypatch.setattr(machine, "make_tracer", disturbing)
    assert total_cycles(conditional, SIXTEEN).total is not None
    assert disturbing.asked == ["addresses"]


def test_the_hooks_leave_outputs_as_they_are(tiny: Firmware) -> None:
    run = Machine(tiny, flash=FLASH).run([tiny_input()], count=True, cycles=True)
    assert run.outputs == (tiny_expected(tiny_input()),)
    assert run.faults == ()
