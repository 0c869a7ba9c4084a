"""Small firmwares as a user would link them: a script of their own, and start-up code that never runs."""

from __future__ import annotations

from pathlib import Path

from emulate_support import CORES

from tinydeploy.emulate.toolchain import find_toolchain, run_tool

# As in vendors' scripts: values of .data and the code of .ramfunc are stored in flash, behind the code.
SCRIPT = """
MEMORY { FLASH (rx) : ORIGIN = 0x08000000, LENGTH = 1M  RAM (rwx) : ORIGIN = 0x20000000, LENGTH = 128K }
SECTIONS
{
    .text : { KEEP(*(.vectors)) *(.text .text.*) *(.rodata .rodata.*) } > FLASH
    .init_array : { KEEP(*(.init_array)) } > FLASH
    .data : { *(.data .data.*) KEEP(*(.ramfunc)) } > RAM AT > FLASH
    .bss (NOLOAD) : { *(.bss .bss.* COMMON) } > RAM
    /DISCARD/ : { *(.ARM.exidx*) *(.comment) *(.note*) *(.eh_frame*) }
}
"""

APP = """
#include <stdint.h>
extern void reset(void);
#define KEPT(name) __attribute__((section(name), used))
KEPT(".vectors") void (*const vectors[2])(void) = { (void (*)(void))0x20020000, reset };
static void constructor(void) {}
KEPT(".init_array") void (*const constructors[1])(void) = { constructor };
void reset(void) { *(volatile uint32_t *)0x40021000 = 1; for (;;) ; }

int32_t initialised = 41;
int32_t zeroed;
int8_t samples[16];
int16_t shorts[4];
const int8_t weights[64] __attribute__((aligned(32))) = { 1, 2, 3, 4, 5, 6, 7, 8 };
static uint8_t heap[4096];
static unsigned used;

__attribute__((noinline, used)) int twice(int x) { __asm__ volatile("" : "+r"(x)); return 2 * x; }
int add(int a, int b, int c, int d) { return a - b + 3 * c + 7 * d; }
int memory(void) { return initialised + zeroed; }
int calls(void) { return twice(1) + twice(2) + twice(3); }
int sum(const int8_t *x, int n) { int s = 0; for (int i = 0; i < n; i++) s += x[i]; return s; }
int sum_shorts(void) { return shorts[0] + 2 * shorts[1] + 3 * shorts[2] + 4 * shorts[3]; }
void setup(void) { zeroed = 100; for (int i = 0; i < 100; i++) __asm__ volatile("nop"); }
__attribute__((noinline)) int deep(int n)
{
    volatile int32_t frame[64];
    for (int i = 0; i < 64; i++) frame[i] = n;
    return n ? deep(n - 1) + frame[n] : 0;
}
void *allocate(void) { void *p = heap + used; used += 64; return p; }
KEPT(".ramfunc") __attribute__((noinline)) int in_ram(int n)
{
    int s = 0;
    for (int i = 0; i < n; i++) { s += i; __asm__ volatile("" : "+r"(s)); }
    return s;
}
int in_flash(int n)
{
    int s = 0;
    for (int i = 0; i < n; i++) { s += i; __asm__ volatile("" : "+r"(s)); }
    return s;
}

int forever(void) { for (;;) __asm__ volatile(""); }
int peripheral(void) { return *(volatile uint32_t *)0x40021000; }
int system_register(void) { return *(volatile uint32_t *)0xE000ED00; }
int null_call(void) { int (*volatile f)(void) = 0; return f(); }
int writes_flash(void) { *(volatile int8_t *)weights = 1; return 0; }
int arm_state(void) { void (*volatile f)(void) = (void (*)(void))0x08000010; f(); return 0; }
int semihosting(void) { __asm__ volatile("bkpt 0xab"); return 0; }
int operating_system(void) { __asm__ volatile("svc 0"); return 0; }
int interrupt(void) { __asm__ volatile("wfi"); return 0; }
int trap(void) { __asm__ volatile("udf 1"); return 0; }
int data_only;
"""

FLOATS = """
volatile float value = 2.0f;
int floats(void) { value = value * 3.0f + 1.0f; return (int)value; }
"""
DSP = """
int dual(int a, int b, int c)
{
    __asm__("smlad %0, %1, %2, %0" : "+r"(c) : "r"(a), "r"(b));
    return c;
}
"""


def link_app(
    folder: Path,
    text: str = APP,
    *,
    core: str = "cortex-m4",
    compiler: str | None = None,
    flags: tuple[str, ...] = ("-O2",),
) -> Path:
    """Compiles and links one C file; the ELF file's path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "app.c").write_text(text)
    (folder / "app.ld").write_text(SCRIPT)
    toolchain = find_toolchain(CORES[core], compiler)
    command = [*toolchain.command, *toolchain.flags_for(CORES[core]), *flags, "-std=gnu99", "-fno-common"]
    zig = toolchain.kind == "zig"
    command += ["-fno-sanitize=undefined"] if zig else ["-fno-tree-loop-distribute-patterns"]
    command += ["-nostdlib", "-static", "-T", "app.ld", "-Wl,-e,reset", "app.c", "-o", "app.elf"]
    run_tool(command, cwd=folder, doing="linking the test's firmware")
    return folder / "app.elf"
