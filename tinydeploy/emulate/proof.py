"""Two proofs about machine code: it is integer only, and the core has every instruction in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tinydeploy.emulate.arch import Architecture, architecture_of
from tinydeploy.emulate.build import Firmware, compile_flags, compile_objects
from tinydeploy.emulate.image import CodeRange, read_image
from tinydeploy.errors import DeployError


def float_symbols(firmware: Firmware) -> tuple[str, ...]:
    """What speaks against the model being integer only; empty where it is proved.

    Two questions, because neither is enough alone: does the code as built hold a floating-point instruction
    (a hard-float core calls no helper for a multiplication), and do the same sources, compiled for soft
    float, call any helper beyond those that its instruction set allows (a soft-float core has no such
    instruction).

    Returns:
        ``function: instruction`` for each floating-point instruction, and the name of each helper.

    Raises:
        DeployError: the project does not compile for soft float.
        MissingExtraError: pyelftools or capstone is not installed.
    """
    found: list[str] = []
    for path in firmware.objects:
        found.extend(_float_instructions(architecture_of(firmware.core), path))
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
    found = [f"0x{piece.address:08x}: Arm state" for piece in image.code if not piece.usable]
    for piece, address, text, why in architecture_of(core).unsupported(core, image):
        found.append(f"{image.locate(address, piece.section)} (0x{address:08x}): {text}: {why}")
    return tuple(found)


def _float_instructions(architecture: Architecture, path: Path) -> Iterator[str]:
    image = read_image(path)
    for piece in image.code:
        for address, code in _raw_instructions(architecture, piece):
            if architecture.is_float(code):
                function = image.function_at(address, piece.section)
                name = path.name if function is None else function.base_name
                yield f"{name}: {architecture.text(code, address)}"


def _raw_instructions(architecture: Architecture, piece: CodeRange) -> Iterator[tuple[int, bytes]]:
    """Address and bytes of each instruction; the last one may be cut off by the range's end."""
    position = 0
    while position < len(piece.data):
        length = architecture.length_at(piece.data, position)
        yield piece.address + position, piece.data[position : position + length]
        position += length


def _foreign_helpers(firmware: Firmware) -> set[str]:
    """Undefined names of the soft-float objects that are neither the model's nor allowed."""
    flags = (*_soft_flags(firmware), firmware.level)
    out = firmware.elf.parent / "soft"
    objects = compile_objects(firmware.project, firmware.abi, firmware.toolchain, flags, out)
    images = [read_image(path) for path in objects]
    own = {symbol.name for image in images for symbol in image.symbols}
    undefined = {name for image in images for name in image.undefined}
    architecture = architecture_of(firmware.core)
    prefix = architecture.soft_helper_prefix
    foreign = undefined - own - architecture.soft_helpers
    return {name for name in foreign if not (prefix and name.startswith(prefix))}


def _soft_flags(firmware: Firmware) -> tuple[str, ...]:
    """The core's flags with software floating point in place of its unit's."""
    kind, flags = firmware.toolchain.kind, compile_flags(firmware.toolchain, firmware.core)
    if kind == "host":
        raise DeployError("the host's code is not proved to be integer only", where=firmware.core.name)
    return architecture_of(firmware.core).soft_flags(kind, flags)
