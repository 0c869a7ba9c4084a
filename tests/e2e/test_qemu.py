"""QEMU, a second emulator with its own start-up code, gives the same outputs and instruction counts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "unit")]

from emulate_support import COMPILERS, CORES, PROJECT, TINY, odd_firmware, tiny_expected, tiny_input  # noqa: E402
from qemu import run_qemu, why_not  # noqa: E402

from tinydeploy.emulate.build import build  # noqa: E402
from tinydeploy.emulate.machine import Machine  # noqa: E402
from tinydeploy.emulate.toolchain import find_toolchain  # noqa: E402

pytestmark = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")
TICK = 40


@pytest.mark.parametrize("compiler", COMPILERS)
def test_qemu_agrees_on_outputs_and_instructions(compiler: str, tmp_path: Path) -> None:
    core = CORES["cortex-m4"]
    firmware = build(PROJECT, TINY, core, find_toolchain(core, compiler), tmp_path / "firmware")
    ours = Machine(firmware).run([tiny_input()], count=True)
    theirs = run_qemu(PROJECT, TINY, [tiny_input()], tmp_path / "qemu", objects=firmware.objects)
    assert theirs.status == 0
    assert theirs.outputs == ours.outputs == (tiny_expected(tiny_input()),)
    assert ours.instructions is not None
    assert abs(theirs.instructions - ours.instructions) <= max(2 * TICK, ours.instructions // 1000)


def test_the_projects_own_sources_are_compiled_where_no_objects_are_given(tmp_path: Path) -> None:
    run = run_qemu(PROJECT, TINY, [tiny_input(1)], tmp_path)
    assert run.outputs == (tiny_expected(tiny_input(1)),)


@pytest.mark.parametrize("offset", [0, 1])
def test_qemu_faults_where_the_alignment_check_does(offset: int, tmp_path: Path) -> None:
    layer = f"""
    register const int8_t *p __asm__("r2") = input + {offset};
    __asm__ volatile("ldrd r4, r5, [r2]" : "+r"(p) : : "r4", "r5", "memory");
    output[0] = 1;
    """
    firmware = odd_firmware(tmp_path, layer)
    sample = [bytes(range(16))]
    faults = Machine(firmware).run(sample, check_alignment=True).faults
    theirs = run_qemu(firmware.project, firmware.abi, sample, tmp_path / "qemu", objects=firmware.objects)
    assert bool(faults) == bool(offset)
    assert theirs.status == (-1000 if offset else 0)
