"""A model on the emulated core: outputs, counts, stack, arena, and how a run can fail."""

from __future__ import annotations

from pathlib import Path

import pytest
from emulate_support import COMPILERS, CORES, PROJECT, TINY, odd_firmware, tiny_expected, tiny_input

from tinydeploy.emulate.abi import ModelAbi
from tinydeploy.emulate.build import build
from tinydeploy.emulate.machine import Machine
from tinydeploy.emulate.toolchain import find_toolchain
from tinydeploy.errors import DeployError

SIXTEEN = bytes(range(16))


@pytest.fixture(scope="module", params=COMPILERS)
def compiler(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=CORES)
def tiny(request: pytest.FixtureRequest, compiler: str, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    core = CORES[request.param]
    out = tmp_path_factory.mktemp("tiny")
    return Machine(build(PROJECT, TINY, core, find_toolchain(core, compiler), out))


def test_outputs_are_those_of_the_arithmetic(tiny: Machine) -> None:
    for seed in range(3):
        run = tiny.run([tiny_input(seed)])
        assert run.outputs == (tiny_expected(tiny_input(seed)),)
        assert run.status == 0


@pytest.mark.parametrize("offset", range(4))
def test_pointers_outside_the_arena_may_have_any_alignment(tiny: Machine, offset: int) -> None:
    run = tiny.run([tiny_input()], place="outside", offset=offset, count=True, check_alignment=True)
    assert run.outputs == (tiny_expected(tiny_input()),)
    assert run.faults == ()


def test_a_counted_run_says_where_the_instructions_went(tiny: Machine) -> None:
    run = tiny.run([tiny_input()], count=True)
    assert set(run.per_function) == {"tiny_00_scale", "tiny_01_dense", "tiny_run"}
    assert sum(run.per_function.values()) == run.instructions
    assert run.per_function["tiny_01_dense"] > 10_000
    assert 5 < run.per_function["tiny_run"] < 100
    assert run.faults == ()
    assert tiny.run([tiny_input()], count=True) == run


def test_an_uncounted_run_has_no_instructions(tiny: Machine) -> None:
    run = tiny.run([tiny_input()])
    assert run.instructions is None
    assert run.per_function == {}


def test_memory_is_measured(tiny: Machine) -> None:
    run = tiny.run([tiny_input()], count=True)
    assert run.arena_touched == 321
    assert run.canary_intact
    assert 8 <= run.stack_bytes <= 200


def test_the_output_place_is_no_part_of_an_outside_run(tiny: Machine) -> None:
    assert tiny.run([tiny_input()], place="outside", count=True).arena_touched == 256


def test_inputs_of_another_size_are_refused(tiny: Machine) -> None:
    with pytest.raises(DeployError, match=r"inputs of \(255,\) bytes, and the model takes \(256,\)"):
        tiny.run([bytes(255)])


LOOP = """
    (void)input; (void)output;
    __asm__ volatile(
        "movs r2, #0\\n movs r3, #8\\n"             /* 2 */
        "1: subs r3, #1\\n"                          /* 8 times */
        "it ne\\n addne r2, #1\\n"                   /* 8 times 2: a skipped instruction is one too */
        "bne 1b\\n"                                  /* 8 times */
        ::: "r2", "r3", "cc");
"""


@pytest.mark.parametrize("core", ["cortex-m3", "cortex-m4", "cortex-m7", "cortex-m33"])
def test_a_loop_with_an_it_block_is_counted_exactly(core: str, compiler: str, tmp_path: Path) -> None:
    empty = Machine(odd_firmware(tmp_path / "a", '__asm__ volatile("");', core=core, compiler=compiler))
    looped = Machine(odd_firmware(tmp_path / "b", LOOP, core=core, compiler=compiler))
    counts = [m.run([SIXTEEN], count=True).per_function["odd_00_layer"] for m in (empty, looped)]
    assert counts[1] - counts[0] == 2 + 8 * 4


@pytest.mark.parametrize("core", CORES)
def test_blocks_that_the_emulator_splits_are_counted_once(core: str, compiler: str, tmp_path: Path) -> None:
    """3000 instructions in a row, of both lengths, go over its limits of instructions and of pages."""
    body = r".syntax unified\n .rept 1000\n adds r2, #1\n dmb\n adds r2, #2\n .endr"
    straight = f'__asm__ volatile("{body}" ::: "r2", "cc");'
    empty = Machine(odd_firmware(tmp_path / "a", '__asm__ volatile("");', core=core, compiler=compiler))
    long = Machine(odd_firmware(tmp_path / "b", straight, core=core, compiler=compiler))
    counts = [m.run([SIXTEEN], count=True).per_function["odd_00_layer"] for m in (empty, long)]
    assert counts[1] - counts[0] == 3000


def test_helpers_count_for_the_layer_that_calls_them(compiler: str, tmp_path: Path) -> None:
    layer = "for (int i = 0; i < 16; i++) output[i] = (int8_t)(((int64_t)input[i] * 0x123456789abcLL) >> 40);"
    run = Machine(odd_firmware(tmp_path, layer, core="cortex-m0plus", compiler=compiler)).run(
        [SIXTEEN], count=True
    )
    assert set(run.per_function) == {"odd_00_layer", "odd_run"}
    assert run.per_function["odd_00_layer"] > 16 * 20


def test_stack_counts_what_is_reserved_and_not_written(compiler: str, tmp_path: Path) -> None:
    layer = """
    int8_t big[1000];
    big[999] = input[0];
    __asm__ volatile("" : : "r"(big) : "memory"); /* the compiler must keep the array */
    output[0] = big[999];
    """
    machine = Machine(odd_firmware(tmp_path, layer, compiler=compiler))
    assert machine.run([SIXTEEN]).stack_bytes < 1000
    assert 1000 <= machine.run([SIXTEEN], count=True).stack_bytes < 1100


@pytest.mark.parametrize("where", ["odd_arena + 32", "odd_arena - 1"])
def test_a_byte_beside_the_arena_breaks_the_canary(where: str, compiler: str, tmp_path: Path) -> None:
    layer = f"int8_t *volatile beside = {where}; *beside ^= 1; output[0] = input[0];"
    run = Machine(odd_firmware(tmp_path, layer, compiler=compiler)).run([SIXTEEN])
    assert not run.canary_intact


def test_a_model_that_reads_what_it_never_wrote_is_found(compiler: str, tmp_path: Path) -> None:
    layer = "output[0] = output[1]; (void)input;"
    run = Machine(odd_firmware(tmp_path, layer, compiler=compiler)).run([SIXTEEN], count=True)
    assert any("other contents of the arena" in fault for fault in run.faults)


@pytest.mark.parametrize(
    ("layer", "fault"),
    [
        ("((volatile int8_t *)input)[3] = 99; output[0] = 0;", "input 0 was written"),
        (
            "((volatile int8_t *)output)[16] = 99; (void)input;",
            "memory beside the output buffers was written",
        ),
    ],
)
def test_outside_buffers_are_guarded(layer: str, fault: str, compiler: str, tmp_path: Path) -> None:
    machine = Machine(odd_firmware(tmp_path, layer, compiler=compiler))
    assert machine.run([SIXTEEN], place="outside").faults == (fault,)


TABLE = "const int8_t odd_table[4] = {1, 2, 3, 4};"


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("volatile int8_t *volatile null = 0; output[0] = *null; (void)input;", "the emulated core faulted"),
        ("int8_t *volatile p = (int8_t *)odd_table; *p = 2; (void)input;", "the emulated core faulted"),
        ('for (;;) __asm__ volatile("");', "did not return within 0.2 s"),
        ('__asm__ volatile("udf #0");', "the emulated core faulted"),
    ],
)
def test_code_that_does_not_come_back_is_named(
    layer: str, message: str, compiler: str, tmp_path: Path
) -> None:
    firmware = odd_firmware(tmp_path, layer, compiler=compiler, globals_=TABLE)
    machine = Machine(firmware, seconds=0.2)
    with pytest.raises(DeployError, match=message) as caught:
        machine.run([SIXTEEN])
    assert caught.value.where.startswith("odd_00_layer+0x")


def test_several_inputs_and_outputs_go_through_a_struct(compiler: str, tmp_path: Path) -> None:
    abi = ModelAbi("pair", (4, 8), (8, 4), 24, ("pair.c",))
    (tmp_path / "pair.c").write_text(
        """
        #include <stdint.h>
        struct pair_io { const int8_t *a; const int8_t *b; int8_t *c; int8_t *d; };
        static int8_t pair_arena[24] __attribute__((aligned(4)));
        int8_t *pair_input_0(void) { return pair_arena; }
        int8_t *pair_input_1(void) { return pair_arena + 4; }
        int8_t *pair_output_0(void) { return pair_arena + 12; }
        int8_t *pair_output_1(void) { return pair_arena + 20; }
        int pair_run(const struct pair_io *io)
        {
            for (int i = 0; i < 8; i++) io->c[i] = (int8_t)-io->b[i];
            for (int i = 0; i < 4; i++) io->d[i] = (int8_t)(io->a[i] + 1);
            return -3;
        }
        """
    )
    core = CORES["cortex-m4"]
    machine = Machine(build(tmp_path, abi, core, find_toolchain(core, compiler), tmp_path / "out"))
    for place in ("arena", "outside"):
        run = machine.run([b"\x01\x02\x03\x04", bytes(range(8))], place=place)  # type: ignore[arg-type]
        assert run.outputs == (bytes((-i) % 256 for i in range(8)), b"\x02\x03\x04\x05")
        assert run.status == -3
