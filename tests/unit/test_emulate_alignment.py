"""Accesses that silicon refuses and the emulator lets pass are found during the run."""

from __future__ import annotations

from pathlib import Path

import pytest
from emulate_support import COMPILERS, odd_firmware
from sweeps import by_turns

from tinydeploy.emulate.alignment import passes
from tinydeploy.emulate.machine import Machine, Run
from tinydeploy.errors import DeployError

pytestmark = pytest.mark.parametrize("compiler", COMPILERS)
WITH_THUMB2 = ["cortex-m3", "cortex-m4", "cortex-m7", "cortex-m33"]
MULTIPLE = (
    "ldrd r4, r5, [r2]",
    "strd r4, r5, [r2, #4]",
    "ldrd r4, r5, [r2], #8",
    "ldm r2, {r4, r5}",
    "ldmia r2!, {r3, r4}",
    "stmdb r2!, {r4, r5}",
)


def run(layer: str, core: str, compiler: str, folder: Path) -> Run:
    return Machine(odd_firmware(folder, layer, core=core, compiler=compiler)).run(
        [bytes(range(16))], check_alignment=True
    )


def assembly(text: str, offset: int) -> str:
    """The text with r2 pointing ``offset`` bytes into the input, which is a multiple of 8 away from 0."""
    return f"""
    register const int8_t *p __asm__("r2") = input + {offset};
    __asm__ volatile(".syntax unified\\n {text}" : "+r"(p) : : "r3", "r4", "r5", "cc", "memory");
    output[0] = 1;
    """


@pytest.mark.parametrize(("text", "core"), by_turns(MULTIPLE, WITH_THUMB2))
def test_multiple_and_double_words_are_aligned_on_every_core(
    text: str, core: str, compiler: str, tmp_path: Path
) -> None:
    faults = run(assembly(text, 6), core, compiler, tmp_path / "odd").faults
    assert len(faults) == 1
    assert faults[0].startswith("odd_00_layer+0x")
    assert f": {text[:3]}" in faults[0]
    assert " at unaligned address 0x20000" in faults[0]
    assert run(assembly(text, 8), core, compiler, tmp_path / "even").faults == ()


@pytest.mark.parametrize("core", WITH_THUMB2)
def test_single_words_may_be_unaligned_from_armv7_on(core: str, compiler: str, tmp_path: Path) -> None:
    assert run(assembly("ldr r4, [r2, #1]\\n ldrh r5, [r2]", 1), core, compiler, tmp_path).faults == ()


@pytest.mark.parametrize(
    "text", ["ldr r4, [r2]", "ldrh r4, [r2, #2]", "str r4, [r2, #4]", "ldm r2!, {r4, r5}"]
)
def test_armv6_allows_no_unaligned_access(text: str, compiler: str, tmp_path: Path) -> None:
    with pytest.raises(DeployError, match="the emulated core faulted") as caught:
        run(assembly(text, 3), "cortex-m0plus", compiler, tmp_path / "odd")
    assert caught.value.where.startswith("odd_00_layer+0x")
    assert "unaligned" in caught.value.hint
    assert run(assembly(text, 4), "cortex-m0plus", compiler, tmp_path / "even").faults == ()


def test_an_access_that_its_it_block_skips_is_no_fault(compiler: str, tmp_path: Path) -> None:
    text = "cmp r2, #0\\n ite %s\\n ldrd%s r4, r5, [r2]\\n mov%s r3, #1"
    skipped, taken = text % ("eq", "eq", "ne"), text % ("ne", "ne", "eq")
    assert run(assembly(skipped, 1), "cortex-m4", compiler, tmp_path / "a").faults == ()
    assert len(run(assembly(taken, 1), "cortex-m4", compiler, tmp_path / "b").faults) == 1


def test_conditions_follow_the_flags(compiler: str) -> None:
    n, z, c, v = 1 << 31, 1 << 30, 1 << 29, 1 << 28
    eq, ne, hs, lo, mi, pl, vs, vc, hi, ls, ge, lt, gt, le, always = range(1, 16)
    for condition, flags in [
        (eq, z),
        (hs, c),
        (mi, n),
        (vs, v),
        (hi, c),
        (ge, n | v),
        (lt, n),
        (gt, 0),
        (le, z),
    ]:
        assert passes(condition, flags)
    for condition, flags in [(ne, z), (lo, c), (pl, n), (vc, v), (ls, c), (hi, c | z), (gt, z), (le, n | v)]:
        assert not passes(condition, flags)
    assert passes(always, n | z | c | v)
