"""The proofs about machine code: integer only, and nothing that the core lacks."""

from __future__ import annotations

from pathlib import Path

import pytest
from emulate_support import COMPILERS, CORES, NO_GCC, PROJECT, TINY, odd_firmware

from tinydeploy.emulate import isa
from tinydeploy.emulate.build import build
from tinydeploy.emulate.proof import float_symbols, unsupported_instructions
from tinydeploy.emulate.toolchain import find_toolchain, run_tool

FLOAT = "for (int i = 0; i < 16; i++) output[i] = (int8_t)((float)input[i] * 0.37f);"


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("core", CORES)
def test_integer_code_for_its_own_core_passes_both(core: str, compiler: str, tmp_path: Path) -> None:
    firmware = build(PROJECT, TINY, CORES[core], find_toolchain(CORES[core], compiler), tmp_path)
    assert float_symbols(firmware) == ()
    assert unsupported_instructions(firmware) == ()


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("core", CORES)
def test_a_float_multiplication_is_found(core: str, compiler: str, tmp_path: Path) -> None:
    assert "__aeabi_fmul" in float_symbols(odd_firmware(tmp_path, FLOAT, core=core, compiler=compiler))


@NO_GCC
@pytest.mark.parametrize("core", ["cortex-m4", "cortex-m7", "cortex-m33"])
def test_a_floating_point_instruction_is_named_with_its_function(core: str, tmp_path: Path) -> None:
    found = float_symbols(odd_firmware(tmp_path, FLOAT, core=core, compiler="gcc"))
    assert any(text.startswith("odd_00_layer: vmul.f32 ") for text in found)


@pytest.mark.parametrize("compiler", COMPILERS)
def test_a_helper_outside_the_contract_is_found(compiler: str, tmp_path: Path) -> None:
    layer = "volatile uint64_t v = (uint8_t)input[0]; v = v / 7u / (v + 1); output[0] = (int8_t)v;"
    assert "__aeabi_uldivmod" in float_symbols(odd_firmware(tmp_path, layer, compiler=compiler))


ENCODED = {
    "smlad r0, r0, r0, r0": ".inst.w 0xfb200000",
    "sdiv r0, r0, r0": ".inst.w 0xfb90f0f0",
    "vadd.f32 s0, s0, s0": ".inst.w 0xee300a00",
    "vadd.f64 d0, d0, d0": ".inst.w 0xee300b00",
    "cbz": ".inst.n 0xb100",
    "it eq": ".inst.n 0xbf08",
    "lda r0, [r0]": ".inst.w 0xe8d00faf",
    "undefined": ".inst.w 0xfbe000f0",
    "crc32b r0, r1, r0": ".inst.w 0xfac1f080",
    "vst4.8 {d0-d3}, [r0]": ".inst.w 0xf9000000",
}


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize(
    ("core", "instruction", "why"),
    [
        ("cortex-m3", "smlad r0, r0, r0, r0", "the core has no DSP extension"),
        ("cortex-m0plus", "sdiv r0, r0, r0", "not in Armv6-M"),
        ("cortex-m0plus", "cbz", "not in Armv6-M"),
        ("cortex-m0plus", "it eq", "not in Armv6-M"),
        ("cortex-m3", "vadd.f32 s0, s0, s0", "the core has no floating-point unit"),
        ("cortex-m4", "vadd.f64 d0, d0, d0", "the core has no double precision"),
        ("cortex-m4", "lda r0, [r0]", "not before Armv8-M"),
        ("cortex-m33", "crc32b r0, r1, r0", "not in any M-profile core"),
        ("cortex-m33", "vst4.8 {d0-d3}, [r0]", "the core has no such coprocessor or vector unit"),
        ("cortex-m4", "undefined", "not a known instruction"),
    ],
)
def test_what_the_core_lacks_is_named(
    core: str, instruction: str, why: str, compiler: str, tmp_path: Path
) -> None:
    layer = f'__asm__ volatile("{ENCODED[instruction]}"); output[0] = input[0];'
    found = unsupported_instructions(odd_firmware(tmp_path, layer, core=core, compiler=compiler))
    assert len(found) == 1
    assert found[0].startswith("odd_00_layer+0x")
    assert found[0].endswith(why)


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize(
    ("core", "instruction"),
    [
        ("cortex-m4", "smlad r0, r0, r0, r0"),
        ("cortex-m3", "sdiv r0, r0, r0"),
        ("cortex-m4", "vadd.f32 s0, s0, s0"),
        ("cortex-m7", "vadd.f64 d0, d0, d0"),
        ("cortex-m33", "lda r0, [r0]"),
    ],
)
def test_what_the_core_has_is_not(core: str, instruction: str, compiler: str, tmp_path: Path) -> None:
    layer = f'__asm__ volatile("{ENCODED[instruction]}"); output[0] = input[0];'
    assert unsupported_instructions(odd_firmware(tmp_path, layer, core=core, compiler=compiler)) == ()


@pytest.mark.parametrize("compiler", COMPILERS)
def test_a_literal_pool_is_no_code(compiler: str, tmp_path: Path) -> None:
    """The constant would read as SMLAD, had it been taken for an instruction."""
    layer = '__asm__ volatile("b 1f\\n .balign 4\\n .word 0x0000fb20\\n 1:"); output[0] = input[0];'
    assert unsupported_instructions(odd_firmware(tmp_path, layer, core="cortex-m3", compiler=compiler)) == ()


@NO_GCC
def test_the_assembler_agrees_on_the_dsp_extension(tmp_path: Path) -> None:
    """Each name in the table is an instruction of a Cortex-M4, and none is one of a Cortex-M3."""
    lines = [f"{name} {_operands(name)}" for name in sorted(isa._DSP)]
    source = tmp_path / "dsp.s"
    source.write_text(".syntax unified\n.thumb\n" + "\n".join(lines) + "\n")
    command = ("arm-none-eabi-gcc", "-mthumb", "-c", source.name, "-o", "dsp.o")
    run_tool((*command, "-mcpu=cortex-m4"), cwd=tmp_path, doing="assembling")
    for line in lines:
        source.write_text(f".syntax unified\n.thumb\n{line}\n")
        with pytest.raises(Exception, match="assembling failed"):
            run_tool((*command, "-mcpu=cortex-m3"), cwd=tmp_path, doing="assembling")


def _operands(name: str) -> str:
    if name in ("ssat16", "usat16"):
        return "r0, #8, r1"
    if name in ("sxtb16", "uxtb16"):
        return "r0, r1"
    four = (
        "smlad",
        "smlal",
        "smlsd",
        "smlsl",
        "smlab",
        "smlat",
        "smlaw",
        "smmla",
        "smmls",
        "usada8",
        "umaal",
    )
    return "r0, r1, r2, r3" if name.startswith(four) else "r0, r1, r2"
