"""Profiles of linked RISC-V firmwares: the same promises as on Arm, with other registers and maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from emulate_support import BOTH_RISCV_COMPILERS, PROJECT, RISCV, RISCV_COMPILERS, TINY, tiny_input
from firmware_support import link_riscv_app

from tinydeploy.emulate.build import build
from tinydeploy.emulate.cycles.model import Cycles
from tinydeploy.emulate.firmware import read_firmware
from tinydeploy.emulate.machine import Machine
from tinydeploy.emulate.toolchain import find_toolchain
from tinydeploy.errors import DeployError
from tinydeploy.firmware_profile import FirmwareCall, FirmwareProfile, profile_firmware
from tinydeploy.targets import load_target

BOARDS = ("raspberry-pi-pico-2-riscv", "esp32-c3-devkitm-1")


@pytest.fixture(scope="module", params=BOTH_RISCV_COMPILERS)
def app(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return link_riscv_app(tmp_path_factory.mktemp("app"), compiler=request.param)


def profiled(path: Path, entry: str, *targets: str, **options: object) -> FirmwareProfile:
    found = [load_target(name) for name in targets or (BOARDS[0],)]
    return profile_firmware(path, found, FirmwareCall(entry, **options))  # type: ignore[arg-type]


def result(path: Path, entry: str, **options: object) -> int:
    return profiled(path, entry, **options).targets[0].run.result


@pytest.mark.parametrize("compiler", RISCV_COMPILERS)
def test_a_models_own_firmware_has_the_figures_of_its_profile(compiler: str, tmp_path: Path) -> None:
    firmware = build(PROJECT, TINY, RISCV, find_toolchain(RISCV, compiler), tmp_path)
    board = load_target("esp32-c3-devkitm-1").board
    assert board is not None
    known = Machine(firmware, flash=board.flash).run([tiny_input()], count=True, cycles=True)
    (tmp_path / "in.bin").write_bytes(tiny_input())
    arena = firmware.image.symbol("tiny_arena").address
    found = profiled(
        firmware.elf,
        "tiny_run",
        "esp32-c3-devkitm-1",
        arguments=("tiny_arena", hex(arena + 256)),
        inputs=(f"tiny_arena={tmp_path}/in.bin",),
    ).targets[0]
    assert found.run.instructions == known.instructions
    assert known.cycles is not None
    assert found.latency.parts == known.cycles.total
    # The lowest word that was written; a frame of RISC-V is rounded up to 16 bytes.
    assert found.run.stack_bytes <= known.stack_bytes < found.run.stack_bytes + 16
    assert found.flash_bytes == firmware.flash_bytes


def test_eight_arguments_go_into_registers(app: Path) -> None:
    assert result(app, "add", arguments=("1", "-1", "0x10", "2", "3", "4", "5", "6")) == 1 - 2 + 48 + 8 + 86
    assert result(app, "sum", arguments=("weights", "8")) == 36
    with pytest.raises(DeployError, match="9 arguments are given, and registers a0 to a7 hold 8"):
        profiled(app, "add", arguments=("1",) * 9)


def test_memory_is_as_after_start_up_with_the_global_pointer_set(app: Path) -> None:
    # Small data is reached through GP, which start-up code would have set.
    assert read_firmware(app).image.global_pointer is not None
    assert result(app, "memory") == 41
    assert result(app, "memory", setup=("setup",)) == 141


def test_a_pointer_to_a_function_is_its_address(app: Path) -> None:
    assert result(app, "apply", arguments=("twice", "21")) == 42


def test_inputs_come_from_a_file_into_a_symbol(app: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", x=np.arange(32, dtype=np.int8).reshape(2, 16))
    found = result(app, "sum", arguments=("samples", "16"), inputs=(f"samples={tmp_path}/in.npz",))
    assert found == sum(range(16))


def test_each_function_counts_by_itself(app: Path) -> None:
    run = profiled(app, "calls").targets[0].run
    by_name = {f.name: f for f in run.functions}
    assert by_name["twice"].calls == 3
    assert by_name["calls"].calls == 1
    assert sum(f.instructions for f in run.functions) == run.instructions
    assert run.cycles.total is not None
    assert sum((f.cycles for f in run.functions if f.cycles), Cycles()) == run.cycles.total


def test_cycles_of_a_function_are_those_by_hand(app: Path) -> None:
    """`fixed`: two li, four turns of mul, add, addi and a branch that is taken three times, and ret."""
    timing = RISCV.timing
    assert timing is not None
    run = profiled(app, "fixed", "rv32imc").targets[0].run
    costs = dict(timing.__dict__)
    issue = 2 * costs["alu"] + 4 * (costs["multiply"] + 3 * costs["alu"]) + costs["alu"]
    branches = 3 * costs["taken_branch"] + costs["taken_return"]
    assert run.instructions == 2 + 4 * 4 + 1
    assert run.cycles.total is not None
    assert (run.cycles.total.issue, run.cycles.total.branches) == (issue, branches)
    assert run.result == 16 + 9 + 4 + 1


def test_constants_in_flash_wait_and_code_in_ram_does_not(app: Path) -> None:
    read = profiled(app, "sum", arguments=("weights", "64")).targets[0].run.cycles.total
    assert read is not None
    # 64 bytes in lines of 8, each 55 wait states and the look-up.
    assert read.flash_read == 8 * 56
    ram, flash = (profiled(app, name, arguments=("100",)).targets[0].run for name in ("in_ram", "in_flash"))
    assert ram.result == flash.result == 4950
    assert ram.cycles.total is not None
    assert flash.cycles.total is not None
    assert ram.cycles.total.flash_fetch == 0
    assert flash.cycles.total.flash_fetch > 0


@pytest.mark.parametrize("board", BOARDS)
def test_flash_and_ram_are_those_of_the_sections(app: Path, board: str) -> None:
    found = profiled(app, "memory", board).targets[0]
    assert found.fits is True
    linked = read_firmware(app)
    assert linked.static_ram_bytes >= 4096
    assert found.ram_bytes == linked.static_ram_bytes + found.run.stack_bytes


def test_code_in_the_ram_of_an_esp32_c3_is_no_flash(tmp_path: Path) -> None:
    app = link_riscv_app(tmp_path, map_="esp32-c3")
    found = profiled(app, "in_ram", "esp32-c3-devkitm-1", arguments=("100",)).targets[0]
    assert found.run.cycles.total is not None
    assert found.run.cycles.total.flash_fetch == 0
    assert found.ram_bytes >= read_firmware(app).static_ram_bytes >= 4096


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("peripheral", "reads the peripheral register or ROM at 0x40021000"),
        ("null_call", "jumps to 0x00000000, where there is no code"),
        ("writes_flash", "writes to 0x1000.*, which is flash"),
        ("semihosting", "stops at EBREAK"),
        ("operating_system", r"calls an operating system \(ECALL\)"),
        ("interrupt", r"waits for an interrupt \(WFI\)"),
        ("trap", "not in RV32IMC"),
        ("atomic", "no atomic instructions"),
        ("forever", "did not return within 100,000 instructions"),
        ("data_only", "'data_only' is data, not a function"),
    ],
)
def test_what_cannot_be_run_is_named(app: Path, entry: str, message: str) -> None:
    with pytest.raises(DeployError, match=message):
        profiled(app, entry, max_instructions=100_000)


def test_code_for_another_machine_is_refused(app: Path) -> None:
    with pytest.raises(DeployError, match="is an ELF file for RISC-V, and nucleo-l4r5zi runs code for ARM"):
        profiled(app, "memory", "nucleo-l4r5zi")
    with pytest.raises(DeployError, match="not on host"):
        profiled(app, "memory", "host")
