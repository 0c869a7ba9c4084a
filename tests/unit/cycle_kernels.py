"""Small assembly kernels whose cycles can be counted by hand, each a layer function of its own."""

from __future__ import annotations

from pathlib import Path

from emulate_support import odd_firmware

from tinydeploy.emulate.build import Firmware

# r0 (a0 on RISC-V) holds the address of 16 bytes of RAM, a multiple of 8; r1 to r3, r12 (a1 to a7) are free.
_FRAME = """
__asm__("{syntax}.text\\n.p2align 5\\n"
        ".global {name}\\n.type {name}, %function\\n{name}:\\n"
        "{body}\\n.size {name}, .-{name}\\n.p2align 5\\n");
void {name}(void *ram);
"""


def kernel_firmware(folder: Path, kernels: dict[str, str], core: str, helper: str = "") -> Firmware:
    """A model whose layer runs each kernel once; the kernel `x` is the function `odd_07_x`, say.

    Args:
        kernels: for each name the assembly, instructions separated by semicolons or line ends.
        helper: more C at the top of the file.
    """
    syntax = "" if core.startswith("rv32") else ".syntax unified\\n.thumb\\n"
    named = {f"odd_{number:02d}_{name}": text for number, (name, text) in enumerate(kernels.items(), 1)}
    bodies = "".join(
        _FRAME.format(
            syntax=syntax,
            name=name,
            body="\\n".join(part.strip() for part in text.replace("\n", ";").split(";")),
        )
        for name, text in named.items()
    )
    calls = "".join(f"{name}((void *)input);" for name in named)
    layer = f"for (int i = 0; i < 16; i++) output[i] = 0; {calls}"
    return odd_firmware(folder, layer, core=core, compiler="gcc", globals_=helper + bodies)
