"""RV32IMC: what its bits mean, what it costs, and that the same proofs hold as on a Cortex-M."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from cycle_kernels import kernel_firmware
from emulate_support import PROJECT, RISCV, RISCV_COMPILERS, TINY, odd_firmware, tiny_expected, tiny_input

from tinydeploy.emulate import rv32
from tinydeploy.emulate.build import build
from tinydeploy.emulate.cpu import Cpu
from tinydeploy.emulate.cycles.model import Cycles
from tinydeploy.emulate.image import read_image
from tinydeploy.emulate.machine import Machine
from tinydeploy.emulate.memory import ModelMemory, buffer_bytes
from tinydeploy.emulate.proof import float_symbols, unsupported_instructions
from tinydeploy.emulate.toolchain import Toolchain, find_toolchain
from tinydeploy.errors import DeployError
from tinydeploy.targets import FlashTiming

SIXTEEN = bytes(range(16))
every_compiler = pytest.mark.parametrize("compiler", RISCV_COMPILERS)
gcc_only = pytest.mark.parametrize("compiler", RISCV_COMPILERS[:1])

DECODED = {
    "00150513": rv32.Decoded("alu", 10, (10,), immediate=1),  # addi a0, a0, 1
    "fe010113": rv32.Decoded("alu", 2, (2,), immediate=-32),  # addi sp, sp, -32
    "02a58533": rv32.Decoded("multiply", 10, (11, 10)),  # mul a0, a1, a0
    "02a59533": rv32.Decoded("multiply_high", 10, (11, 10)),  # mulh a0, a1, a0
    "02a5c533": rv32.Decoded("divide", 10, (11, 10)),  # div a0, a1, a0
    "ffe5d503": rv32.Decoded("load", 10, (11,), 11, -2, 2),  # lhu a0, -2(a1)
    "fea5ae23": rv32.Decoded("store", None, (11, 10), 11, -4, 4),  # sw a0, -4(a1)
    "00b50463": rv32.Decoded("branch", None, (10, 11)),  # beq a0, a1, +8
    "008000ef": rv32.Decoded("jump", 1),  # jal ra, +8
    "000280e7": rv32.Decoded("jump_register", 1, (5,)),  # jalr ra, t0
    "00052507": rv32.Decoded("float"),  # flw fa0, 0(a0)
    "00a57553": rv32.Decoded("float"),  # fadd.s fa0, fa0, fa0
    "00302573": rv32.Decoded("float"),  # frcsr a0
    "00c5252f": rv32.Decoded("atomic"),  # amoadd.w a0, a2, (a1)
    "20a5c533": rv32.Decoded("unknown"),  # xnor, of Zbb
    "8082": rv32.Decoded("jump_register", None, (1,)),  # ret
    "4588": rv32.Decoded("load", 10, (11,), 11, 8, 4),  # c.lw a0, 8(a1)
    "c588": rv32.Decoded("store", None, (11, 10), 11, 8, 4),  # c.sw a0, 8(a1)
    "4522": rv32.Decoded("load", 10, (2,), 2, 8, 4),  # c.lwsp a0, 8(sp)
    "1101": rv32.Decoded("alu", 2, (2,), immediate=-32),  # c.addi sp, -32
    "6105": rv32.Decoded("alu", 2, (2,), immediate=16),  # c.addi16sp sp, 32: the sign is what counts
    "6588": rv32.Decoded("float"),  # c.flw fa0, 8(a1)
    "0000": rv32.Decoded("unknown"),
}


@pytest.mark.parametrize("bits", DECODED)
def test_an_instruction_is_what_the_manual_says(bits: str) -> None:
    assert rv32.decode(bytes.fromhex(bits)[::-1]) == DECODED[bits]


def disassembled(code: bytes) -> str | None:
    """The mnemonic by another decoder, None where it knows none."""
    capstone = pytest.importorskip("capstone")
    engine = capstone.Cs(capstone.CS_ARCH_RISCV, capstone.CS_MODE_RISCV32 | capstone.CS_MODE_RISCVC)
    return next((insn.mnemonic for insn in engine.disasm(code, 0)), None)


# Reserved encodings that capstone lets pass: C.LUI of 0, shifts by 32 and more, the all-zero word.
LENIENT = {"c.unimp", "c.lui", "c.slli", "c.srli", "c.srai", "slli", "srli", "srai"}


def assert_same_view(code: bytes) -> None:
    name, found = disassembled(code), rv32.decode(code)
    if found.kind == "unknown":
        assert name is None or name in LENIENT, (code.hex(), name)
    elif name is not None:
        looks_so = name.startswith(("f", "c.f")) and not name.startswith(("fence", "fs", "fr"))
        is_float = looks_so or name in FLOAT
        assert (found.kind == "float") == is_float, (code.hex(), name)
        assert (found.kind == "load") == (name.removeprefix("c.") in LOADS), (code.hex(), name)


LOADS = {"lb", "lh", "lw", "lbu", "lhu", "lwsp"}
FLOAT = {"fsw", "fsd", "fsub.s", "fsub.d", "fsqrt.s", "fsqrt.d", "fsgnj.s", "fsgnj.d", "fsgnjn.s", "fsgnjn.d"}
FLOAT |= {"fsgnjx.s", "fsgnjx.d", "frcsr", "frrm", "frflags", "fscsr", "fsrm", "fsflags", "fsrmi", "fsflagsi"}


@pytest.mark.parametrize("step", [61, pytest.param(1, marks=pytest.mark.slow)])
def test_every_compressed_instruction_agrees_with_the_disassembler(step: int) -> None:
    for half in range(0, 1 << 16, step):
        if half & 3 != 3:
            assert_same_view(half.to_bytes(2, "little"))


def test_random_words_agree_with_the_disassembler() -> None:
    source = random.Random(1)
    for _ in range(20_000):
        assert_same_view((source.getrandbits(30) << 2 | 3).to_bytes(4, "little"))


@every_compiler
def test_the_hand_written_model_runs_and_is_counted(compiler: str, tmp_path: Path) -> None:
    firmware = build(PROJECT, TINY, RISCV, find_toolchain(RISCV, compiler), tmp_path)
    assert firmware.image.machine == "RISC-V"
    assert float_symbols(firmware) == ()
    assert unsupported_instructions(firmware) == ()
    data = tiny_input()
    run = Machine(firmware).run([data], count=True, cycles=True, check_alignment=True)
    assert (run.outputs[0], run.faults) == (tiny_expected(data), ())
    assert run.instructions == sum(run.per_function.values()) > 256
    assert run.stack_bytes > 0
    assert run.cycles is not None
    assert run.cycles.total is not None
    assert run.cycles.total.total > run.instructions


@gcc_only
def test_counted_blocks_are_the_instructions_one_by_one(compiler: str, tmp_path: Path) -> None:
    firmware = build(PROJECT, TINY, RISCV, find_toolchain(RISCV, compiler), tmp_path)
    memory = ModelMemory(firmware, Cpu(RISCV, firmware.image, buffer_bytes(TINY)))
    pieces, seen = firmware.image.code, [0]
    first, last = min(p.address for p in pieces), max(p.address + len(p.data) for p in pieces)
    memory.cpu.on_instructions(first, last, lambda *_: seen.append(seen.pop() + 1))
    arguments, _ = memory.prepare([tiny_input()], "arena", 0, 0)
    seen[0] = 0  # the places of input and output were asked for
    assert memory.cpu.call("tiny_run", arguments, 60.0) == 0
    assert Machine(firmware).run([tiny_input()], count=True).instructions == seen[0]


@every_compiler
def test_a_float_multiplication_is_found(compiler: str, tmp_path: Path) -> None:
    layer = "for (int i = 0; i < 16; i++) output[i] = (int8_t)((float)input[i] * 0.37f);"
    assert "__mulsf3" in float_symbols(odd_firmware(tmp_path, layer, core="rv32imc", compiler=compiler))


@every_compiler
def test_a_floating_point_instruction_is_named_with_its_function(compiler: str, tmp_path: Path) -> None:
    layer = '__asm__ volatile(".insn r 0x53, 7, 0, a0, a0, a0"); output[0] = input[0];'  # fadd.s
    firmware = odd_firmware(tmp_path, layer, core="rv32imc", compiler=compiler)
    assert any(text.startswith("odd_00_layer: fadd.s ") for text in float_symbols(firmware))
    assert any("the core has no floating-point unit" in text for text in unsupported_instructions(firmware))


@every_compiler
def test_an_instruction_of_another_extension_is_found(compiler: str, tmp_path: Path) -> None:
    layer = '__asm__ volatile(".insn r 0x2f, 2, 0, zero, a0, a0" ::: "memory");'  # amoadd.w
    firmware = odd_firmware(tmp_path, layer, core="rv32imc", compiler=compiler)
    assert any("no atomic instructions" in text for text in unsupported_instructions(firmware))


@every_compiler
@pytest.mark.parametrize(("access", "offset", "refused"), [("lw", 2, True), ("lh", 1, True), ("sw", 3, True)])
def test_an_unaligned_access_is_found(
    compiler: str, access: str, offset: int, refused: bool, tmp_path: Path
) -> None:
    assert [run_access(tmp_path, compiler, access, at) != () for at in (0, offset)] == [False, refused]


def run_access(folder: Path, compiler: str, access: str, offset: int) -> tuple[str, ...]:
    layer = f"""
    const int8_t *p = input + {offset};
    int value = 0;
    __asm__ volatile("{access} %0, 0(%1)" : "+r"(value) : "r"(p) : "memory");
    output[0] = (int8_t)value;
    """
    firmware = odd_firmware(folder / str(offset), layer, core="rv32imc", compiler=compiler)
    faults = Machine(firmware).run([SIXTEEN], check_alignment=True).faults
    assert all(f"{access} at unaligned address" in fault for fault in faults)
    return faults


@every_compiler
def test_a_null_pointer_faults(compiler: str, tmp_path: Path) -> None:
    layer = '__asm__ volatile("lw a0, 0(zero)" : : : "a0", "memory"); output[0] = input[0];'
    firmware = odd_firmware(tmp_path, layer, core="rv32imc", compiler=compiler)
    with pytest.raises(DeployError, match="faulted"):
        Machine(firmware).run([SIXTEEN])


# a0 holds the address of 16 bytes of RAM; cycles of the instructions, and of the jumps that were taken.
BY_HAND = {
    "alu": ("add a1, a1, a2; slli a1, a1, 3; lui a1, 1; nop; ret", 5, 1),
    "multiply": ("mul a1, a2, a3; mulh a1, a2, a3; mulhu a1, a2, a3; ret", 4, 1),
    "divide": ("div a1, a2, a3; remu a1, a2, a3; ret", 33 + 33 + 1, 1),
    "load": ("lw a1, 0(a0); lbu a2, 4(a0); nop; sw a1, 0(a0); ret", 5, 1),
    "load use": (
        "lw a1, 0(a0); add a1, a1, a1; lw a2, 0(a0); lw a3, 4(a0); add a4, a2, a3; ret",
        6 + 1 + 1,
        1,
    ),
    "load address": ("lw a1, 0(a0); sw a1, 0(a0); ret", 3 + 1, 1),
    "branch taken": ("li a1, 0; beqz a1, 1f; nop; 1: ret", 3, 2 + 1),
    "branch not taken": ("li a1, 1; beqz a1, 1f; nop; 1: ret", 4, 1),
    "jump": ("j 1f; nop; 1: ret", 2, 1 + 1),
    # Each turn but the last takes the branch; the last falls through.
    "loop": ("li a1, 5; 1: addi a1, a1, -1; bnez a1, 1b; ret", 1 + 5 * 2 + 1, 4 * 2 + 1),
}


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Cycles]:
    if find_toolchain(RISCV).kind != "gcc":
        pytest.skip(f"{RISCV.gcc} is not on PATH")
    kernels = {name.replace(" ", "_"): text for name, (text, _, _) in BY_HAND.items()}
    firmware = kernel_firmware(tmp_path_factory.mktemp("riscv"), kernels, "rv32imc")
    run = Machine(firmware).run([SIXTEEN], count=True, cycles=True)
    assert run.cycles is not None
    assert run.cycles.per_function is not None
    return {name[len("odd_00_") :].replace("_", " "): c for name, c in run.cycles.per_function.items()}


@pytest.mark.parametrize("name", BY_HAND)
def test_the_count_is_that_by_hand(counted: dict[str, Cycles], name: str) -> None:
    _, issue, branches = BY_HAND[name]
    assert counted[name] == Cycles(issue=issue, branches=branches)


@gcc_only
def test_the_flash_is_seen_by_either_way(compiler: str, tmp_path: Path) -> None:
    layer = """
    static const int8_t table[64] = {3, 1, 4, 1, 5, 9, 2, 6};
    for (int i = 0; i < 16; i++) output[i] = (int8_t)(table[4 * i] + input[i]);
    """
    firmware = odd_firmware(tmp_path, layer, core="rv32imc", compiler=compiler)
    flash = FlashTiming(20, 32, 16384, 16384, prefetch=False, unified_cache=True)
    run = Machine(firmware, flash=flash).run([SIXTEEN], count=True, cycles=True)
    assert run.cycles is not None
    assert run.cycles.notes == ()
    assert run.cycles.per_function is not None
    # 64 bytes of constants in lines of 32 bytes: two or three of them, each missed once.
    assert run.cycles.per_function["odd_00_layer"].flash_read in (2 * 21, 3 * 21)


def test_an_elf_file_of_another_machine_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x86.elf"
    # A bare ELF header: 32 bits, little-endian, machine 3 (x86), no sections.
    path.write_bytes(b"\x7fELF\x01\x01\x01" + bytes(9) + bytes([2, 0, 3, 0, 1, 0, 0, 0]) + bytes(28))
    with pytest.raises(DeployError, match="Arm or RISC-V"):
        read_image(path)


def test_without_a_compiler_the_message_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(DeployError, match=RISCV.gcc):
        find_toolchain(RISCV, "gcc")


def test_zig_serves_where_gcc_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ziglang")
    monkeypatch.setattr("shutil.which", lambda name: None)
    found: Toolchain = find_toolchain(RISCV)
    assert found.kind == "zig"
    assert found.flags_for(RISCV) == RISCV.zig_flags
