"""Profiles of linked firmwares: memory as after start-up, each function by itself, and what cannot be run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cycle_kernels import kernel_firmware
from emulate_support import BOTH_COMPILERS, CORES, NO_GCC, PROJECT, TINY, tiny_input
from firmware_support import APP, DSP, FLOATS, link_app

from tinydeploy.emulate.build import build
from tinydeploy.emulate.cycles import native, tracer
from tinydeploy.emulate.cycles.model import Cycles
from tinydeploy.emulate.firmware import entry_symbol, on_board, read_firmware
from tinydeploy.emulate.firmware_run import Call, FirmwareRun, run_firmware
from tinydeploy.emulate.machine import Machine
from tinydeploy.emulate.toolchain import find_toolchain
from tinydeploy.errors import DeployError
from tinydeploy.firmware_profile import FirmwareCall, FirmwareProfile, profile_firmware
from tinydeploy.targets import load_target

BOARD = load_target("nucleo-l4r5zi")


@pytest.fixture(scope="module", params=BOTH_COMPILERS)
def app(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return link_app(tmp_path_factory.mktemp("app"), compiler=request.param)


def profiled(path: Path, entry: str, *targets: str, **options: object) -> FirmwareProfile:
    found = [load_target(name) for name in targets or ("nucleo-l4r5zi",)]
    return profile_firmware(path, found, FirmwareCall(entry, **options))  # type: ignore[arg-type]


def result(path: Path, entry: str, **options: object) -> int:
    return profiled(path, entry, **options).targets[0].run.result


def test_a_models_own_firmware_has_the_figures_of_its_profile(tmp_path: Path) -> None:
    core = CORES["cortex-m4"]
    firmware = build(PROJECT, TINY, core, find_toolchain(core, None), tmp_path)
    assert BOARD.board is not None
    known = Machine(firmware, flash=BOARD.board.flash).run([tiny_input()], count=True, cycles=True)
    (tmp_path / "in.bin").write_bytes(tiny_input())
    arena, out = firmware.image.symbol("tiny_arena").address, 0x2000_0100 + 256
    call = ("tiny_arena", hex(out))
    wanted = profiled(firmware.elf, "tiny_run", arguments=call, inputs=(f"tiny_arena={tmp_path}/in.bin",))
    found = wanted.targets[0]
    assert arena == 0x2000_0100
    assert found.run.result == 0
    assert found.run.instructions == known.instructions
    assert known.cycles is not None
    assert found.latency.parts == known.cycles.total
    assert found.run.stack_bytes == known.stack_bytes
    assert found.flash_bytes == firmware.flash_bytes


def test_memory_is_as_after_start_up(app: Path) -> None:
    assert result(app, "memory") == 41 + 0


def test_arguments_go_into_registers(app: Path) -> None:
    assert result(app, "add", arguments=("100", "-1", "0x10", "2")) == 100 + 1 + 48 + 14
    assert result(app, "sum", arguments=("weights", "8")) == 36


def test_inputs_come_from_a_file_into_a_symbol(app: Path, tmp_path: Path) -> None:
    rows = np.arange(32, dtype=np.int8).reshape(2, 16)
    np.savez(tmp_path / "in.npz", x=rows, other=np.array([[1, 2, 3, 4]], ">i2"))
    (tmp_path / "in.bin").write_bytes(bytes([5, 6]))
    call = ("samples", "16")
    assert result(app, "sum", arguments=call, inputs=(f"samples={tmp_path}/in.npz",)) == sum(range(16))
    assert result(app, "sum_shorts", inputs=(f"shorts={tmp_path}/in.npz:other",)) == 1 + 4 + 9 + 16
    assert result(app, "sum", arguments=call, inputs=(f"samples={tmp_path}/in.bin",)) == 11
    # A constant in flash is replaced as well.
    constants = ("weights", "64")
    found = result(app, "sum", arguments=constants, inputs=(f"weights={tmp_path}/in.bin",))
    assert found == 5 + 6 + sum(range(3, 9))


def test_an_input_that_fills_only_a_part_is_noted(app: Path, tmp_path: Path) -> None:
    (tmp_path / "in.bin").write_bytes(bytes([5, 6]))
    notes = profiled(app, "memory", inputs=(f"samples={tmp_path}/in.bin",)).notes
    assert len(notes) == 1
    assert "2 bytes for 'samples', which has 16" in notes[0]


def test_a_setup_runs_before_and_is_not_counted(app: Path) -> None:
    plain, prepared = profiled(app, "memory"), profiled(app, "memory", setup=("setup",))
    assert prepared.targets[0].run.result == 141
    assert prepared.targets[0].run.instructions == plain.targets[0].run.instructions
    assert {f.name for f in prepared.targets[0].run.functions} == {"memory"}


def test_each_function_counts_by_itself(app: Path) -> None:
    run = profiled(app, "calls").targets[0].run
    by_name = {f.name: f for f in run.functions}
    assert set(by_name) == {"calls", "twice"}
    assert by_name["twice"].calls == 3
    assert by_name["calls"].calls == 1
    assert sum(f.instructions for f in run.functions) == run.instructions
    total = run.cycles.total
    assert total is not None
    assert sum((f.cycles for f in run.functions if f.cycles), Cycles()) == total


def test_the_peak_stack_is_that_of_the_call(app: Path) -> None:
    shallow, deep = (profiled(app, "deep", arguments=(n,)).targets[0].run.stack_bytes for n in ("1", "11"))
    assert 2_560 <= deep - shallow <= 2_560 + 10 * 64


def test_code_in_ram_does_not_wait_for_the_flash(app: Path) -> None:
    ram, flash = (profiled(app, name, arguments=("100",)).targets[0].run for name in ("in_ram", "in_flash"))
    assert ram.result == flash.result == 4950
    assert ram.cycles.total is not None
    assert flash.cycles.total is not None
    assert ram.cycles.total.flash_fetch == 0
    assert flash.cycles.total.flash_fetch > 0
    assert ram.cycles.total.issue == flash.cycles.total.issue


def test_constants_wait_although_the_linker_made_the_segment_writable(app: Path) -> None:
    total = profiled(app, "sum", arguments=("weights", "64")).targets[0].run.cycles.total
    assert total is not None
    # 64 bytes in lines of 8, each 5 wait states and the look-up.
    assert total.flash_read == 8 * 6


def test_flash_and_ram_are_those_of_the_sections(app: Path) -> None:
    board, core = profiled(app, "memory", "nucleo-l4r5zi", "cortex-m4").targets
    assert board.fits is True
    assert core.fits is None
    assert core.latency.latency_ms is None
    linked = read_firmware(app)
    assert linked.static_ram_bytes >= 4096
    assert board.ram_bytes == linked.static_ram_bytes + board.run.stack_bytes
    assert board.flash_bytes == linked.flash_bytes < 4096


def test_what_does_not_fit_is_said(app: Path, tmp_path: Path) -> None:
    text = Path("targets/boards/nucleo-l4r5zi.toml").read_text(encoding="utf-8")
    small = tmp_path / "small.toml"
    small.write_text(
        text.replace('"nucleo-l4r5zi"', '"small"').replace("ram_bytes = 655360", "ram_bytes = 1024")
    )
    found = profiled(app, "memory", str(small))
    assert not found.all_fit
    assert "RAM" in found.targets[0].why


@NO_GCC
@pytest.mark.parametrize(("core", "target"), [("cortex-m4", "cortex-m4"), ("cortex-m33", "nrf5340-dk")])
def test_the_floating_point_unit_is_on(core: str, target: str, tmp_path: Path) -> None:
    found = profiled(link_app(tmp_path, FLOATS + "void reset(void) {}", core=core), "floats", target)
    assert found.targets[0].run.result == 7
    assert found.targets[0].latency.cycles is not None


@NO_GCC
def test_instructions_that_the_core_lacks_are_refused(tmp_path: Path) -> None:
    floats = link_app(tmp_path / "f", FLOATS + "void reset(void) {}")
    with pytest.raises(DeployError, match="no floating-point unit"):
        profiled(floats, "floats", "cortex-m3")
    dual = link_app(tmp_path / "d", DSP + "void reset(void) {}")
    # The emulator's Cortex-M3 runs it all the same.
    with pytest.raises(DeployError, match=r"cortex-m3 cannot run 'smlad.*no DSP extension"):
        profiled(dual, "dual", "cortex-m3")
    assert (
        profiled(dual, "dual", "cortex-m4", arguments=("0x10002", "0x30004", "5")).targets[0].run.result == 16
    )


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("peripheral", "reads the peripheral register at 0x40021000"),
        ("system_register", "reads the system register .* at 0xe000ed00"),
        ("null_call", "jumps to 0x00000000, where there is no code"),
        ("writes_flash", "writes to 0x0800.*, which is flash"),
        ("arm_state", "goes to Arm state at 0x08000010"),
        ("semihosting", "stops at BKPT"),
        ("operating_system", r"calls an operating system \(SVC\)"),
        ("interrupt", r"waits for an interrupt \(WFI\)"),
        ("trap", r"runs into a trap \(UDF\)"),
        ("forever", "did not return within 100,000 instructions"),
        ("reset", "writes the peripheral register at 0x40021000"),
        ("data_only", "'data_only' is data, not a function"),
        ("calsl", "there is no function 'calsl'"),
    ],
)
def test_what_cannot_be_run_is_named(app: Path, entry: str, message: str) -> None:
    with pytest.raises(DeployError, match=message) as caught:
        profiled(app, entry, max_instructions=100_000)
    assert caught.value.hint or entry == "data_only"


def test_an_endless_loop_ends_without_a_compiler_too(app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracer, "load_library", lambda: None)
    with pytest.raises(DeployError, match="did not return within 1,000 instructions"):
        profiled(app, "forever", max_instructions=1_000)
    assert native.load_library is not tracer.load_library


def test_a_setup_that_does_not_return_is_named(app: Path) -> None:
    with pytest.raises(DeployError, match="did not return within 1,000 instructions") as caught:
        profiled(app, "memory", setup=("forever",), max_instructions=1_000)
    assert caught.value.where == "forever"


def test_the_limit_is_exact(app: Path) -> None:
    needed = profiled(app, "in_flash", arguments=("50",)).targets[0].run.instructions
    profiled(app, "in_flash", arguments=("50",), max_instructions=needed)
    with pytest.raises(DeployError, match="did not return within"):
        profiled(app, "in_flash", arguments=("50",), max_instructions=needed - 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"arguments": ("1", "2", "3", "4", "5")}, "5 arguments are given"),
        ({"arguments": ("0x100000000",)}, "does not fit a register"),
        ({"arguments": ("weihgts",)}, "no symbol 'weihgts'"),
        ({"inputs": ("samples",)}, "names no symbol and file"),
        ({"inputs": ("nowhere=in.npz",)}, "no symbol 'nowhere'"),
        ({"inputs": ("samples=none.npz",)}, "no such file"),
        ({"inputs": ("samples=none.bin",)}, "cannot be read"),
        ({"inputs": ("samples=in.npz:z",)}, "has no array 'z'; it holds"),
        ({"inputs": ("samples=in.npz:long",)}, "holds 17 bytes, and 'samples' has 16"),
        ({"inputs": ("samples=in.npz:text",)}, "not numbers"),
        ({"inputs": ("samples=in.npz:scalar",)}, "holds no sample"),
        ({"setup": ("nothing",)}, "there is no function 'nothing'"),
    ],
)
def test_wrong_arguments_and_inputs_are_named(
    app: Path,
    options: dict[str, tuple[str, ...]],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    arrays = {"long": np.zeros((1, 17), np.int8), "text": np.array(["a"]), "scalar": np.float32(1)}
    np.savez("in.npz", x=np.zeros((1, 16), np.int8), **arrays)  # type: ignore[arg-type]
    with pytest.raises(DeployError, match=message):
        profiled(app, "memory", **options)


def test_a_name_that_two_functions_have_is_refused(tmp_path: Path) -> None:
    again = '\n__asm__(".local twin\\n.type twin,%function\\n.thumb_func\\ntwin: bx lr\\n.size twin,2");'
    (tmp_path / "other").mkdir()
    first = APP.replace("int data_only;", again)
    second = "static __attribute__((noinline, used)) int twin(int x) { return x + 5; }\n"
    path = link_app(tmp_path, first)
    assert entry_symbol(read_firmware(path).image, "twin").is_function
    (tmp_path / "more.c").write_text(second)
    path = link_app(tmp_path, first, flags=("-O2", "more.c"))
    with pytest.raises(DeployError, match="there are 2 functions 'twin'"):
        profiled(path, "twin")
    # They are two rows, and neither swallows the other.
    assert profiled(path, "memory").targets[0].run.result == 41


@NO_GCC
def test_cycles_of_a_function_are_those_by_hand(tmp_path: Path) -> None:
    body = "push {r4, lr}; bl odd_helper; bl odd_helper; pop {r4, pc}"
    helper = '__asm__(".syntax unified\\n.thumb\\n.text\\n.type odd_helper, %function\\n.global odd_helper\\n'
    helper += 'odd_helper: bx lr\\n.size odd_helper, .-odd_helper\\n");'
    firmware = kernel_firmware(tmp_path, {"call": body}, "cortex-m4", helper)
    run = run_of(firmware.elf, "odd_01_call")
    cycles = {f.name: f.cycles for f in run.functions}
    # PUSH and POP of two are 3 each, BL and BX 1; every branch taken adds 2.
    assert cycles == {"odd_01_call": Cycles(3 + 1 + 1 + 3, 3 * 2), "odd_helper": Cycles(2, 2 * 2)}


def run_of(path: Path, entry: str) -> FirmwareRun:
    linked = on_board(read_firmware(path), None)
    return run_firmware(CORES["cortex-m4"], linked, None, Call(entry_symbol(linked.image, entry)))


@NO_GCC
def test_a_file_without_mapping_symbols_runs_too(tmp_path: Path) -> None:
    path = link_app(tmp_path)
    plain = profiled(path, "calls").targets[0].run
    for mark in (b"$t\0", b"$d\0"):
        path.write_bytes(path.read_bytes().replace(mark, b"_x\0"))
    assert profiled(path, "calls").targets[0].run == plain
