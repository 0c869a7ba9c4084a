"""The model of cycles against counts by hand: each rule of timing in a kernel of its own."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from cycle_kernels import kernel_firmware
from emulate_support import CORES, NO_GCC

from tinydeploy.emulate.cycles.cost import block_cost
from tinydeploy.emulate.cycles.instructions import instructions_of
from tinydeploy.emulate.cycles.model import Cycles
from tinydeploy.emulate.machine import Machine
from tinydeploy.emulate.thumb import disassembler
from tinydeploy.targets import FlashTiming

pytestmark = NO_GCC

SIXTEEN = bytes(range(16))

# The kernel; cycles of its instructions and of its taken branches, as a person counts them.
COMMON = {
    "alu": "movs r2, #1; adds r2, #2; lsls r2, r2, #3; sxtb r2, r2; bx lr",
    "loads": "ldr r2, [r0]; ldr r3, [r0, #4]; ldrb r2, [r0, #8]; bx lr",
    "chained": "str r0, [r0]; ldr r2, [r0]; ldr r3, [r2]; bx lr",
    "itself": "str r0, [r0]; ldr r0, [r0]; ldr r0, [r0]; bx lr",
    "address": "adds r0, #4; ldr r3, [r0]; bx lr",
    "far_address": "adds r0, #4; nop; ldr r3, [r0]; bx lr",
    "stores": "str r3, [r0]; movs r2, #4; nop; str r3, [r0, r2]; bx lr",
    "multiple": "ldmia r0!, {r2, r3}; push {r4, lr}; pop {r4, pc}",
    "stored_multiple": "stmia r0!, {r2, r3}; bx lr",
    "loop": "movs r2, #5\n1: subs r2, #1\n bne 1b\n bx lr",
    "jump": "b 1f\n nop\n1: bx lr",
    "next": "b 1f\n1: bx lr",
    "multiply": "muls r2, r3, r2; bx lr",
    "barrier": "dmb; bx lr",
    "call": "push {r4, lr}; bl odd_helper; pop {r4, pc}",
}
FULL = COMMON | {
    "long": "mla r2, r3, r2, r2; smull r2, r3, r12, r3; umlal r2, r3, r12, r3; bx lr",
    "divide": "movs r2, #6; movs r3, #3; udiv r2, r2, r3; bx lr",
    "double": "ldrd r2, r3, [r0]; strd r2, r3, [r0, #8]; bx lr",
    "zero": "movs r2, #0; cbz r2, 1f; nop\n1: cbnz r2, 2f; nop\n2: bx lr",
    "table": "movs r2, #0; nop; tbb [pc, r2]; .byte 1, 1; bx lr",
    "conditional": "movs r2, #0; it eq; ldreq r3, [r0]; bx lr",
    "skipped": "movs r2, #1; it eq; ldreq r3, [r0]; bx lr",
    "moved": "ldr r2, [r0], #4; ldr r3, [r0]; bx lr",
}
DSP = FULL | {"dual": "smlad r2, r3, r12, r2; smlabb r2, r3, r12, r2; bx lr"}
HELPER = """
__asm__(".syntax unified\\n.thumb\\n.text\\n.global odd_helper\\n.type odd_helper, %function\\n"
        "odd_helper: bx lr\\n.size odd_helper, .-odd_helper\\n");
"""

M4 = {
    "alu": (4 + 1, 2),
    "loads": (2 + 1 + 1 + 1, 2),
    "chained": (1 + 1 + 2 + 1, 2),
    "itself": (1 + 1 + 2 + 1, 2),
    "address": (1 + 2 + 1 + 1, 2),
    "far_address": (1 + 1 + 2 + 1, 2),
    "stores": (1 + 1 + 1 + 2 + 1, 2),
    "multiple": (3 + 3 + 3, 2),
    "stored_multiple": (3 + 1, 2),
    "loop": (1 + 5 * 2 + 1, 4 * 2 + 2),
    "jump": (1 + 1, 2 + 2),
    "next": (1 + 1, 2 + 2),
    "multiply": (1 + 1, 2),
    "barrier": (2 + 1, 2),
    "call": (3 + 1 + 1 + 3, 2 + 2 + 2),
    "long": (3 + 1, 2),
    "divide": (1 + 1 + 7 + 1, 2),
    "double": (3 + 3 + 1, 2),
    "zero": (1 + 1 + 1 + 1 + 1, 2 + 2),
    "table": (1 + 1 + 2 + 1, 2 + 2),
    "conditional": (1 + 1 + 2 + 1, 2),
    "skipped": (1 + 1 + 2 + 1, 2),
    "moved": (2 + 1 + 1, 2),
    "dual": (1 + 1 + 1, 2),
}
M3 = M4 | {"long": (2 + 4 + 6 + 1, 2)}
M33 = M4 | {
    "loads": (3 + 1, 2),
    "chained": (3 + 1, 2),
    "itself": (3 + 1, 2),
    "address": (1 + 1 + 1, 2),
    "far_address": (1 + 1 + 1 + 1, 2),
    "stores": (4 + 1, 2),
    "double": (2 + 2 + 1, 2),
    "table": (1 + 1 + 1 + 1, 2 + 2),
    "conditional": (1 + 1 + 1 + 1, 2),
    "skipped": (1 + 1 + 1 + 1, 2),
    "moved": (2 + 1, 2),
    "dual": (2 + 1 + 1, 2),
}
M0PLUS = {
    "alu": (4 + 1, 1),
    "loads": (2 + 2 + 2 + 1, 1),
    "chained": (2 + 2 + 2 + 1, 1),
    "itself": (2 + 2 + 2 + 1, 1),
    "address": (1 + 2 + 1, 1),
    "far_address": (1 + 1 + 2 + 1, 1),
    "stores": (2 + 1 + 1 + 2 + 1, 1),
    "multiple": (3 + 3 + 3, 2),
    "stored_multiple": (3 + 1, 1),
    "loop": (1 + 5 * 2 + 1, 4 * 1 + 1),
    "jump": (1 + 1, 1 + 1),
    "next": (1 + 1, 1 + 1),
    "multiply": (1 + 1, 1),
    "barrier": (3 + 1, 1),
    "call": (3 + 1 + 1 + 3, 2 + 1 + 2),
}
PAIRED = DSP | {
    "pair": "movs r2, #1; movs r3, #2; bx lr",
    "three_loads": "ldr r1, [r0]; ldr r2, [r0, #4]; ldr r3, [r0, #8]; bx lr",
    "load_use": "ldr r2, [r0]; adds r3, r2, #1; bx lr",
    "narrow": "ldrb r2, [r0]; adds r3, r2, #1; bx lr",
    "product": "muls r2, r3, r2; adds r3, r2, #1; bx lr",
    "two_shifts": "lsls r2, r2, #1; lsls r3, r3, #1; bx lr",
    "shifted": "movs r2, #1; add r3, r3, r2, lsl #2; bx lr",
    "second": "movs r2, #1; sxtb r3, r3; bx lr",
    "stored": "adds r2, r3, #1; str r2, [r0]; bx lr",
}
# Cycle by cycle, what goes together in brackets; a branch that is predicted adds nothing, a return 4.
M7 = {
    "alu": (4, 0),  # movs, adds, lsls, (sxtb bx)
    "loads": (2, 0),  # (ldr ldr), (ldrb bx)
    "chained": (3, 0),  # (str ldr), the address one cycle early, (ldr bx)
    "itself": (3, 0),
    "address": (3, 0),  # adds, the address one cycle early, (ldr bx)
    "far_address": (3, 0),  # (adds nop), wait, (ldr bx)
    "stores": (3, 0),  # (str movs), nop, (str bx)
    "multiple": (3 + 3 + 3, 4),
    "stored_multiple": (3 + 1, 0),
    "loop": (3 + 4 * 2 + 1, 4),  # movs, subs, bne; (subs, bne) 4 times, the last of them mispredicted
    "jump": (1 + 1, 0),
    "next": (1 + 1, 0),
    "multiply": (1, 0),  # (muls bx)
    "barrier": (3 + 1, 0),
    "call": (3 + 1 + 1 + 3, 4),
    "long": (4, 0),  # mla, smull, its result, (umlal bx)
    "divide": (1 + 7 + 1, 0),  # (movs movs), udiv, bx
    "double": (3, 0),  # none goes with another
    "zero": (2 + 1 + 1, 0),  # movs, cbz; cbnz; (nop bx)
    "table": (3 + 1, 0),  # (movs nop), the address one cycle early, tbb; bx
    "conditional": (2, 0),  # (movs it), (ldreq bx)
    "skipped": (2, 0),
    "moved": (2, 0),  # ldr, which moves the base, (ldr bx)
    "dual": (2, 0),  # smlad, (smlabb bx): what is added is needed a cycle late
    "pair": (2, 0),  # (movs movs), bx
    "three_loads": (2, 0),  # (ldr ldr), (ldr bx)
    "load_use": (2, 0),  # ldr, (adds bx)
    "narrow": (3, 0),  # ldrb, wait, (adds bx)
    "product": (3, 0),  # muls, wait, (adds bx)
    "two_shifts": (2, 0),  # lsls, (lsls bx)
    "shifted": (3, 0),  # movs, the shifted operand one cycle early, (add bx)
    "second": (2, 0),  # movs, (sxtb bx): sxtb cannot be the second
    "stored": (2, 0),  # (adds str), bx: what is stored is needed a cycle late
}
BY_HAND = {
    "cortex-m0plus": (COMMON, M0PLUS),
    "cortex-m3": (FULL, M3),
    "cortex-m4": (DSP, M4),
    "cortex-m33": (DSP, M33),
    "cortex-m7": (PAIRED, M7),
}
CASES = [(core, name) for core, (kernels, _) in BY_HAND.items() for name in kernels]


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Cycles]]:
    """For each core the cycles of each kernel, with memory that never waits."""
    found = {}
    for core, (kernels, _) in BY_HAND.items():
        firmware = kernel_firmware(tmp_path_factory.mktemp(core), kernels, core, helper=HELPER)
        run = Machine(firmware).run([SIXTEEN], count=True, cycles=True)
        assert run.faults == ()
        assert run.cycles is not None
        assert run.cycles.per_function is not None
        assert run.cycles.notes[0] == "waits for the flash are not in the cycles"
        cycles = run.cycles.per_function
        found[core] = {name[len("odd_00_") :]: cycles[name] for name in cycles if name[4:6].isdigit()}
    return found


@pytest.mark.parametrize(("core", "name"), CASES)
def test_the_count_is_that_by_hand(counted: dict[str, dict[str, Cycles]], core: str, name: str) -> None:
    issue, branches = BY_HAND[core][1][name]
    assert counted[core][name] == Cycles(issue=issue, branches=branches)


FLOAT = "vadd.f32 s0, s1, s2; vfma.f32 s0, s1, s2; vdiv.f32 s0, s1, s2; vldr s3, [r0]; vldr s4, [r0, #4]; "
FLOAT += "vstr s3, [r0]; vldr d4, [r0]; vpush {s4-s7}; vpop {s4-s7}; bx lr"
FLOATS = {
    "cortex-m4": (1 + 3 + 14 + 2 + 1 + 1 + 3 + 5 + 5 + 1, 2),
    "cortex-m33": (1 + 3 + 14 + 1 + 1 + 1 + 2 + 5 + 5 + 1, 2),
    # vadd and its latency of 3, vfma, vdiv, (vldr vldr), vstr, vldr of two, vpush, vpop, bx
    "cortex-m7": (3 + 1 + 16 + 1 + 1 + 1 + 5 + 5 + 1, 0),
}


@pytest.mark.parametrize("core", FLOATS)
def test_floating_point_by_hand(core: str, tmp_path: Path) -> None:
    firmware = kernel_firmware(tmp_path, {"float": FLOAT}, core)
    run = Machine(firmware).run([SIXTEEN], count=True, cycles=True)
    assert run.faults == ()
    assert run.cycles is not None
    assert run.cycles.per_function is not None
    issue, branches = FLOATS[core]
    assert run.cycles.per_function["odd_01_float"] == Cycles(issue=issue, branches=branches)


def test_what_the_disassembler_does_not_know_has_no_cost() -> None:
    timing = CORES["cortex-m4"].timing
    assert timing is not None
    undefined = bytes.fromhex("ffffffff")
    found = tuple(instructions_of(disassembler(v8=False), undefined + bytes.fromhex("0020"), 0))
    assert [instruction.kind for instruction in found] == ["unknown", "alu"]
    assert block_cost(found, timing).unknown


FLASH = FlashTiming(5, 8, 1024, 256, prefetch=True)
# 64 bytes of code from a multiple of 32 on: 30 halfword instructions, then a return, then nothing more.
STRAIGHT = ";".join(["nop"] * 31) + "; bx lr"
# Two passes over 64 bytes of constants behind the code: the second is served by the data cache.
CONSTANTS = """
 movs r3, #2
1: adr r0, 3f
 movs r2, #16
2: ldr r1, [r0], #4
 subs r2, #1
 bne 2b
 subs r3, #1
 bne 1b
 bx lr
 .p2align 3
3: .zero 64
"""


@pytest.fixture(scope="module")
def kernels_in_flash(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("flash")


def flash_cycles(folder: Path, flash: FlashTiming) -> dict[str, Cycles]:
    kernels = {"straight": STRAIGHT, "constants": CONSTANTS, "conditional": FULL["conditional"]}
    firmware = kernel_firmware(folder, kernels, "cortex-m4")
    run = Machine(firmware, flash=flash).run([SIXTEEN], count=True, cycles=True)
    assert run.cycles is not None
    assert run.cycles.per_function is not None
    assert run.cycles.notes == ()
    return {name[len("odd_00_") :]: cycles for name, cycles in run.cycles.per_function.items()}


def test_each_line_of_code_waits_once(kernels_in_flash: Path) -> None:
    cycles = flash_cycles(kernels_in_flash, FLASH)["straight"]
    assert cycles == Cycles(issue=32, branches=2, flash_fetch=8 * 6)


def test_each_line_of_constants_waits_once_where_the_cache_holds_it(kernels_in_flash: Path) -> None:
    assert flash_cycles(kernels_in_flash, FLASH)["constants"].flash_read == 8 * 6


def test_a_data_cache_that_is_too_small_misses_again(kernels_in_flash: Path) -> None:
    small = FlashTiming(5, 8, 1024, 32, prefetch=True)
    assert flash_cycles(kernels_in_flash, small)["constants"].flash_read == 2 * 8 * 6


def test_without_a_data_cache_every_read_waits(kernels_in_flash: Path) -> None:
    bare = FlashTiming(5, 8, 1024, 0, prefetch=True)
    assert flash_cycles(kernels_in_flash, bare)["constants"].flash_read == 2 * 16 * 5


def test_without_an_instruction_cache_a_loop_fetches_again(kernels_in_flash: Path) -> None:
    bare = FlashTiming(5, 8, 0, 256, prefetch=True)
    assert flash_cycles(kernels_in_flash, bare)["straight"].flash_fetch == 8 * 5
    # Every turn of the inner loop fetches the one or two lines that it lies in.
    assert flash_cycles(kernels_in_flash, bare)["constants"].flash_fetch > 32 * 5


def test_a_prefetch_that_is_on_is_early_by_a_cycle_a_word(kernels_in_flash: Path) -> None:
    on = FlashTiming(5, 8, 1024, 256, prefetch=True, prefetch_enabled=True)
    cycles = flash_cycles(kernels_in_flash, on)["straight"]
    # The first of the eight lines follows none of its own; the line before it is that of another function.
    assert cycles.flash_fetch == 6 + 7 * (6 - 2)


def test_flash_without_wait_states_costs_nothing_but_the_look_up(kernels_in_flash: Path) -> None:
    free = FlashTiming(0, 8, 0, 0, prefetch=False)
    assert flash_cycles(kernels_in_flash, free)["constants"].flash_read == 0


def test_a_core_without_timings_has_no_cycles(tmp_path: Path) -> None:
    firmware = kernel_firmware(tmp_path, {"alu": COMMON["alu"]}, "cortex-m7")
    bare = replace(firmware, core=replace(firmware.core, timing=None))
    run = Machine(bare).run([SIXTEEN], count=True, cycles=True)
    assert run.cycles is not None
    assert run.cycles.total is None
    assert run.cycles.notes == ("there is no table of timings for the core cortex-m7",)


def test_pairs_are_compared_with_one_at_a_time(tmp_path: Path) -> None:
    firmware = kernel_firmware(tmp_path, {"pair": PAIRED["pair"]}, "cortex-m7")
    run = Machine(firmware).run([SIXTEEN], count=True, cycles=True)
    assert run.cycles is not None
    note = run.cycles.notes[-1]
    single = int(re.sub(r"\D", "", note.rpartition("take")[2]))
    assert run.cycles.total is not None
    assert run.instructions is not None
    assert -(-run.instructions // 2) <= run.cycles.total.total < single
