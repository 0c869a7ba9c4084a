"""Small firmwares as a user would link them: a script of their own, and start-up code that never runs."""

from __future__ import annotations

from pathlib import Path

from emulate_support import CORES, RISCV

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


_RISCV_MAPS = {
    "rp2350": ("0x10000000", "0x20000000", "0x20040000"),
    "esp32-c3": ("0x42000000", "0x3FC80000", "0x40390000"),
}

# `code` is RAM for code: behind the data, or through the window that a chip has for it.
RISCV_SCRIPT = """
MEMORY
{
    FLASH (rx) : ORIGIN = %s, LENGTH = 1M
    RAM (rw) : ORIGIN = %s, LENGTH = 128K
    CODE (rwx) : ORIGIN = %s, LENGTH = 64K
}
SECTIONS
{
    .text : { *(.text .text.*) *(.rodata .rodata.* .srodata .srodata.*) } > FLASH
    .ramfunc : { KEEP(*(.ramfunc)) } > CODE AT > FLASH
    .data : { *(.data .data.*) __global_pointer$ = . + 0x800; *(.sdata .sdata.*) } > RAM AT > FLASH
    .bss (NOLOAD) : { *(.sbss .sbss.*) *(.bss .bss.* COMMON) } > RAM
    /DISCARD/ : { *(.comment) *(.note*) *(.eh_frame*) *(.riscv.attributes) }
}
"""

RISCV_APP = """
#include <stdint.h>
#define KEPT(name) __attribute__((section(name), used))
void reset(void) { *(volatile uint32_t *)0x40021000 = 1; for (;;) ; }

int32_t initialised = 41;
int32_t zeroed;
int8_t samples[16];
const int8_t weights[64] __attribute__((aligned(32))) = { 1, 2, 3, 4, 5, 6, 7, 8 };
uint8_t heap[4096];

__attribute__((noinline, used)) int twice(int x) { __asm__ volatile("" : "+r"(x)); return 2 * x; }
int add(int a, int b, int c, int d, int e, int f, int g, int h)
{
    return a + 2 * b + 3 * c + 4 * d + 5 * e + 6 * f + 5 * g + 2 * h + 10;
}
int memory(void) { return initialised + zeroed; }
int calls(void) { return twice(1) + twice(2) + twice(3); }
int apply(int (*f)(int), int x) { return f(x); }
int sum(const int8_t *x, int n) { int s = 0; for (int i = 0; i < n; i++) s += x[i]; return s; }
void setup(void) { zeroed = 100; }
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
__asm__(".globl fixed\\n.type fixed, @function\\n.balign 4\\nfixed:\\n"
        "li a1, 4\\nli a0, 0\\n"
        "1: mul a2, a1, a1\\nadd a0, a0, a2\\naddi a1, a1, -1\\nbnez a1, 1b\\nret\\n"
        ".size fixed, . - fixed\\n");

int forever(void) { for (;;) __asm__ volatile(""); }
int peripheral(void) { return *(volatile uint32_t *)0x40021000; }
int null_call(void) { int (*volatile f)(void) = 0; return f(); }
int writes_flash(void) { *(volatile int8_t *)weights = 1; return 0; }
int semihosting(void) { __asm__ volatile("ebreak"); return 0; }
int operating_system(void) { __asm__ volatile("ecall"); return 0; }
int interrupt(void) { __asm__ volatile("wfi"); return 0; }
int trap(void) { __asm__ volatile("unimp"); return 0; }
int32_t counter;
int atomic(void)
{
    int x = 1;
    __asm__ volatile(".option push\\n.option arch, +a\\namoadd.w %0, %0, (%1)\\n.option pop"
                     : "+r"(x) : "r"(&counter));
    return x;
}
int data_only;
"""


def link_riscv_app(folder: Path, *, compiler: str | None = None, map_: str = "rp2350") -> Path:
    """A RISC-V firmware with small data behind GP; the ELF file's path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "app.c").write_text(RISCV_APP)
    (folder / "app.ld").write_text(RISCV_SCRIPT % _RISCV_MAPS[map_])
    toolchain = find_toolchain(RISCV, compiler)
    command = [*toolchain.command, *toolchain.flags_for(RISCV), "-O2", "-std=gnu99", "-fno-common"]
    zig = toolchain.kind == "zig"
    command += (
        ["-fno-sanitize=undefined"] if zig else ["-ffreestanding", "-fno-tree-loop-distribute-patterns"]
    )
    command += ["-nostdlib", "-static", "-T", "app.ld", "-Wl,-e,reset", "app.c", "-o", "app.elf"]
    run_tool(command, cwd=folder, doing="linking the test's firmware")
    return folder / "app.elf"
