"""Runs an exported model on QEMU's mps2-an386 board (Cortex-M4), as a second opinion on the emulator.

The firmware has its own start-up code and counts with the SysTick timer. Under ``-icount shift=0`` each
instruction takes one virtual nanosecond, and the timer runs at the board's 25 MHz: 40 instructions a tick.
Unlike unicorn, QEMU's board faults where silicon does (unaligned LDM and LDRD).
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tinydeploy.emulate.abi import ModelAbi

INSTRUCTIONS_PER_TICK = 40
MACHINE = "mps2-an386"
_FLAGS = ("-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16", "-O2", "-std=gnu99")
_COMPILER, _EMULATOR = "arm-none-eabi-gcc", "qemu-system-arm"

_SCRIPT = """
ENTRY(reset)
MEMORY { code (rx) : ORIGIN = 0, LENGTH = 4M  data (rwx) : ORIGIN = 0x20000000, LENGTH = 4M }
SECTIONS
{
    .text : { KEEP(*(.vectors)) *(.text* .rodata*) } > code
    .data : { *(.data*) } > data
    .bss (NOLOAD) : { *(.bss* COMMON) } > data
    /DISCARD/ : { *(.ARM.exidx*) *(.ARM.extab*) *(.comment) }
}
"""

_MAIN = """
#include <stddef.h>
#include <stdint.h>
#include "@NAME@.h"

#define REGISTER(address) (*(volatile uint32_t *)(address))
#define SYSTICK_CONTROL REGISTER(0xE000E010)
#define SYSTICK_RELOAD REGISTER(0xE000E014)
#define SYSTICK_VALUE REGISTER(0xE000E018)

static volatile uint32_t wraps;
static const uint8_t input[] = {@INPUT@};
static uint8_t output[@OUTPUT_BYTES@];
static const uint32_t sizes[] = {@SIZES@};

static uint32_t semihost(uint32_t operation, const void *arguments)
{
    register uint32_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = arguments;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

static void put(uint32_t handle, const void *data, uint32_t size)
{
    const uint32_t arguments[3] = {handle, (uint32_t)(uintptr_t)data, size};
    (void)semihost(0x05, arguments);
}

static void leave(void)
{
    const uint32_t arguments[2] = {0x20026, 0};
    (void)semihost(0x20, arguments);
    for (;;) {
    }
}

static void finish(int32_t status, uint32_t ticks)
{
    const char name[] = "@OUT@";
    const uint32_t arguments[3] = {(uint32_t)(uintptr_t)name, 5, sizeof name - 1};
    const uint32_t handle = semihost(0x01, arguments);
    put(handle, &status, 4);
    put(handle, &ticks, 4);
    put(handle, output, sizeof output);
    (void)semihost(0x02, &handle);
    leave();
}

static void copy(uint8_t *to, const uint8_t *from, uint32_t size)
{
    while (size-- > 0) {
        *(volatile uint8_t *)to++ = *from++;
    }
}

static uint32_t now(void)
{
    uint32_t before, value;
    do {
        before = wraps;
        value = SYSTICK_VALUE;
    } while (before != wraps);
    return before * 0x1000000u + (0xFFFFFFu - value);
}

int main(void)
{
    void *const places[] = {@PLACES@};
    const uint8_t *from = input;
    for (int i = 0; i < @INPUTS@; from += sizes[i], i++) {
        copy(places[i], from, sizes[i]);
    }
    SYSTICK_RELOAD = 0xFFFFFF;
    SYSTICK_VALUE = 0;
    SYSTICK_CONTROL = 7;
    while (SYSTICK_VALUE == 0) {
    }
    const uint32_t start = now();
    @CALL@
    const uint32_t ticks = now() - start;
    uint8_t *to = output;
    for (int i = @INPUTS@; i < (int)(sizeof sizes / sizeof *sizes); to += sizes[i], i++) {
        copy(to, places[i], sizes[i]);
    }
    finish(status, ticks);
}

static void systick(void)
{
    wraps++;
}

static void fault(void)
{
    finish(-1000, 0);
}

static void reset(void)
{
    REGISTER(0xE000ED88) |= 0xFu << 20; /* the floating-point unit, for compilers that move data through it */
    __asm__ volatile("dsb\\n isb");
    main();
}

__attribute__((section(".vectors"), used)) static const void *const vectors[16] = {
    (const void *)0x20400000, reset, fault, fault, fault, fault, fault, [15] = systick};
"""


@dataclass(frozen=True)
class QemuRun:
    """What ``NAME_run`` gave back; instructions to within a tick (40) at either end; -1000 is a fault."""

    outputs: tuple[bytes, ...]
    status: int
    instructions: int


def why_not() -> str | None:
    """Why QEMU cannot be used here, or None where it can."""
    missing = [tool for tool in (_COMPILER, _EMULATOR) if shutil.which(tool) is None]
    return f"{' and '.join(missing)} not on PATH" if missing else None


def run_qemu(
    project: Path,
    abi: ModelAbi,
    inputs: Sequence[bytes],
    out: Path,
    *,
    seconds: float = 600,
    objects: Sequence[Path] = (),
) -> QemuRun:
    """Builds a firmware for the board and runs it once, inputs and outputs in their places in the arena.

    Args:
        project: folder of the exported C project.
        abi: its sources and entry points.
        inputs: the bytes of each input.
        out: folder for everything that is made here.
        seconds: the longest that QEMU may take.
        objects: ``Firmware.objects`` for a Cortex-M4, to link in place of compiling the sources: the counts
            are then those of the very same code.
    """
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    result = out / "result.bin"
    result.unlink(missing_ok=True)
    (out / "main.c").write_text(_main(abi, inputs, result.name))
    (out / "qemu.ld").write_text(_SCRIPT)
    sources = [str(path.resolve()) for path in objects] or list(abi.sources)
    command = [_COMPILER, *_FLAGS, "-I", ".", str(out / "main.c"), *sources]
    # No C library: Debian installs the compiler without one.
    command += ["-nostdlib", "-Wl,--gc-sections", "-ffunction-sections", "-fdata-sections"]
    memory = [str(objects[0].resolve().parent / "td_memory.o")] if objects else []
    command += ["-T", str(out / "qemu.ld"), *memory, "-lgcc", "-o", str(out / "qemu.elf")]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    options = ("-M", MACHINE, "-nographic", "-semihosting", "-icount", "shift=0", "-kernel", "qemu.elf")
    subprocess.run((_EMULATOR, *options), cwd=out, check=True, timeout=seconds, stdin=subprocess.DEVNULL)
    return _parse(abi, result.read_bytes())


def _parse(abi: ModelAbi, data: bytes) -> QemuRun:
    status, ticks = (int.from_bytes(data[i : i + 4], "little", signed=True) for i in (0, 4))
    outputs, position = [], 8
    for size in abi.output_bytes:
        outputs.append(data[position : position + size])
        position += size
    return QemuRun(tuple(outputs), status, (ticks & 0xFFFFFFFF) * INSTRUCTIONS_PER_TICK)


def _main(abi: ModelAbi, inputs: Sequence[bytes], result: str) -> str:
    if abi.single:
        call = f"const int32_t status = {abi.run_symbol}(places[0], places[1]);"
    else:
        call = f"const int32_t status = {abi.run_symbol}((const struct {abi.name}_io *)places);"
    values = {
        "NAME": abi.name,
        "INPUT": ",".join(str(byte) for data in inputs for byte in data),
        "INPUTS": str(len(abi.input_bytes)),
        "OUTPUT_BYTES": str(sum(abi.output_bytes)),
        "SIZES": ", ".join(map(str, (*abi.input_bytes, *abi.output_bytes))),
        "PLACES": ", ".join(f"{symbol}()" for symbol in (*abi.input_symbols, *abi.output_symbols)),
        "OUT": result,
        "CALL": call,
    }
    text = _MAIN
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    return text
