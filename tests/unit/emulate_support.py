"""What the emulator's tests share: cores, compilers, the hand-written project and small ones."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest

from tinydeploy.emulate.abi import ModelAbi
from tinydeploy.emulate.build import Firmware, build
from tinydeploy.emulate.toolchain import find_toolchain
from tinydeploy.targets import Core, load_target

PROJECT = Path(__file__).parent / "emulate_project"
TINY = ModelAbi("tiny", (256,), (64,), 321, ("tiny.c", "tiny_weights.c"))
ODD = ModelAbi("odd", (16,), (16,), 32, ("odd.c", "odd_weights.c"))

CORES = {
    name: load_target(name).core
    for name in ("cortex-m0plus", "cortex-m3", "cortex-m4", "cortex-m7", "cortex-m33")
}

RISCV = load_target("rv32imc").core
EVERY_CORE = CORES | {"rv32imc": RISCV}

NO_GCC = pytest.mark.skipif(
    shutil.which("arm-none-eabi-gcc") is None, reason="arm-none-eabi-gcc is not on PATH"
)
NO_ZIG = pytest.mark.skipif(importlib.util.find_spec("ziglang") is None, reason="ziglang is not installed")
NO_RISCV_GCC = pytest.mark.skipif(shutil.which(RISCV.gcc) is None, reason=f"{RISCV.gcc} is not on PATH")
BOTH_COMPILERS = [pytest.param("gcc", marks=NO_GCC), pytest.param("zig", marks=NO_ZIG)]
BOTH_RISCV_COMPILERS = [pytest.param("gcc", marks=NO_RISCV_GCC), pytest.param("zig", marks=NO_ZIG)]


def _taken_first(core: Core, no_gcc: pytest.MarkDecorator) -> list[object]:
    """Both compilers; the fast suite has zig only where there is no gcc."""
    second = [pytest.mark.slow] * (shutil.which(core.gcc or "") is not None)
    return [pytest.param("gcc", marks=no_gcc), pytest.param("zig", marks=[NO_ZIG, *second])]


COMPILERS = _taken_first(CORES["cortex-m4"], NO_GCC)
RISCV_COMPILERS = _taken_first(RISCV, NO_RISCV_GCC)

_ODD = """
#include <stdint.h>
#include "odd.h"
%(globals)s
static int8_t odd_arena[32] __attribute__((aligned(8)));
static __attribute__((noinline)) void odd_00_layer(const int8_t *input, int8_t *output)
{
%(layer)s
}
int8_t *odd_input(void) { return odd_arena; }
int8_t *odd_output(void) { return odd_arena + 16; }
int odd_run(const int8_t *input, int8_t *output)
{
    odd_00_layer(input, output);
    return 0;
}
"""


def odd_firmware(
    folder: Path, layer: str, *, core: str = "cortex-m4", compiler: str | None = None, globals_: str = ""
) -> Firmware:
    """A model of 16 bytes in and out whose only layer has ``layer`` as its body."""
    project = folder / "project"
    project.mkdir(parents=True, exist_ok=True)
    (project / "odd.h").write_text(
        "#include <stdint.h>\nint8_t *odd_input(void);\nint8_t *odd_output(void);\n"
        "int odd_run(const int8_t *input, int8_t *output);\n"
    )
    (project / "odd_weights.c").write_text("typedef int odd_nothing;\n")
    (project / "odd.c").write_text(_ODD % {"layer": layer, "globals": globals_})
    return build(project, ODD, EVERY_CORE[core], find_toolchain(EVERY_CORE[core], compiler), folder / "out")


def tiny_input(seed: int = 0) -> bytes:
    return np.random.default_rng(seed).integers(-128, 128, 256, dtype=np.int8).tobytes()


def tiny_expected(data: bytes) -> bytes:
    """The hand-written model in numpy: a scale by 3/4, then 64 dense outputs."""

    def requantize(acc: np.ndarray, multiplier: int) -> np.ndarray:
        return (2 * acc.astype(np.int64) * multiplier + (1 << 31)) >> 32

    scaled = requantize(np.frombuffer(data, np.int8), 0x60000000).astype(np.int8)
    weights = [w for a in (1, 4, 9, 16, 25, 36, 49, 64) for w in _rows(a)]
    biases = [b for a in (1, 4, 9, 16, 25, 36, 49, 64) for b in (a, -2 * a, 31 * a, 5, -77, 1000 - a, 12, -3)]
    sums = scaled.astype(np.int64).reshape(32, 8).sum(axis=0)
    acc = np.array(weights, np.int64).reshape(64, 8) @ sums + np.array(biases, np.int64)
    return np.clip(requantize(acc, 0x01000000), -128, 127).astype(np.int8).tobytes()


def _rows(a: int) -> list[int]:
    rows = [a + step for step in (0, 3, 5, 9, 11, 17, 21, 30)]
    return [w for r in rows for w in (r, -r, r + 1, 3, -5, r // 2, 7, -(r // 3))]
