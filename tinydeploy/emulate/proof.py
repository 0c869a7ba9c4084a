"""Two proofs about machine code: it is integer only, and the core has every instruction in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tinydeploy.emulate.build import Firmware, compile_objects
from tinydeploy.emulate.image import read_image
from tinydeploy.emulate.isa import is_float, why_unsupported
from tinydeploy.emulate.thumb import decode, disassembler, raw_instructions
from tinydeploy.errors import DeployError

_ALLOWED_HELPERS = frozenset(
    f"__aeabi_{name}" for name in ("lmul", "llsl", "lasr", "idiv", "uidiv", "idivmod", "uidivmod")
) | {"memcpy", "memset", "memmove"}
_ALLOWED_PREFIX = "__aeabi_mem"


def float_symbols(firmware: Firmware) -> tuple[str, ...]:
    """What speaks against the model being integer only; empty where it is proved.

    Two questions, because neither is enough alone: does the code as built hold a floating-point instruction
    (a hard-float core calls no helper for a multiplication), and do the same sources, compiled for soft
    float, call any helper beyond those of the contract (a soft-float core has no such instruction).

    Returns:
        ``function: instruction`` for each floating-point instruction, and the name of each helper.

    Raises:
        DeployError: the project does not compile for soft float.
        MissingExtraError: pyelftools or capstone is not installed.
    """
    found: list[str] = []
    for path in firmware.objects:
        found.extend(_float_instructions(path))
    found.extend(sorted(_foreign_helpers(firmware)))
    return tuple(dict.fromkeys(found))


def unsupported_instructions(firmware: Firmware) -> tuple[str, ...]:
    """Every instruction of the linked firmware that its core does not have.

    Literal pools are left out (they are marked in the ELF file); bytes in code that do not decode are
    reported, and so is Arm state.

    Returns:
        lines such as ``kws_03_conv_2d+0x1c (0x0800011c): smlad r0, r1, r2, r0: the core has no DSP
        extension``.

    Raises:
        MissingExtraError: capstone is not installed.
    """
    image, core = firmware.image, firmware.core
    found = [f"0x{piece.address:08x}: Arm state" for piece in image.code if not piece.thumb]
    is_v8 = core.architecture == "armv8-m.main"
    for piece, address, code, insn in decode(image, v8=is_v8):
        name = None if insn is None else insn.insn_name()
        text = code.hex() if insn is None else f"{insn.mnemonic} {insn.op_str}"
        why = why_unsupported(core, code, name, text)
        if why is not None:
            found.append(f"{image.locate(address, piece.section)} (0x{address:08x}): {text}: {why}")
    return tuple(found)


def _float_instructions(path: Path) -> Iterator[str]:
    image = read_image(path)
    for piece in image.code:
        for address, code in raw_instructions(piece):
            if is_float(code):
                function = image.function_at(address, piece.section)
                name = path.name if function is None else function.base_name
                yield f"{name}: {_text(code, address)}"


def _text(code: bytes, address: int) -> str:
    for insn in disassembler(v8=True).disasm(code, address):
        return f"{insn.mnemonic} {insn.op_str}".strip()
    return code.hex()


def _foreign_helpers(firmware: Firmware) -> set[str]:
    """Undefined names of the soft-float objects that are neither the model's nor allowed."""
    flags = (*_soft_flags(firmware), firmware.level)
    out = firmware.elf.parent / "soft"
    objects = compile_objects(firmware.project, firmware.abi, firmware.toolchain, flags, out)
    images = [read_image(path) for path in objects]
    own = {symbol.name for image in images for symbol in image.symbols}
    undefined = {name for image in images for name in image.undefined}
    return {name for name in undefined - own - _ALLOWED_HELPERS if not name.startswith(_ALLOWED_PREFIX)}


def _soft_flags(firmware: Firmware) -> tuple[str, ...]:
    """The core's flags with software floating point in place of its unit's."""
    kind, flags = firmware.toolchain.kind, firmware.toolchain.flags_for(firmware.core)
    if kind == "zig":
        return tuple(flag.replace("eabihf", "eabi") for flag in flags)
    if kind != "gcc":
        raise DeployError("the host's code is not proved to be integer only", where=firmware.core.name)
    kept = tuple(flag for flag in flags if not flag.startswith(("-mfloat-abi", "-mfpu")))
    return (*kept, "-mfloat-abi=soft")
