"""td_kernels_huffman.h in C against the coder in Python, and whole models with decoded indices."""

from __future__ import annotations

import math
import subprocess
from pathlib import Path

import numpy as np
import pytest
from coded_cases import EVEN, SKEWED, network
from form_cases import KINDS, form_case
from native import assert_equals_engine, needs_compiler, toolchain, write
from sweeps import by_turns, seeds, thinned
from test_kernels_forms import needs_emulator, telling_inputs, unpacking_trios

from tinydeploy.backends.c import project
from tinydeploy.backends.c.coded import HUFFMAN, coded_constants
from tinydeploy.backends.c.fields import bit_stream, field_words
from tinydeploy.backends.c.project import ExportOptions, Project, kernel_text, make_project
from tinydeploy.emulate.build import build
from tinydeploy.emulate.machine import Machine
from tinydeploy.emulate.toolchain import find_toolchain
from tinydeploy.errors import DeployError
from tinydeploy.ir.graph import Graph
from tinydeploy.measure import Job, model_abi
from tinydeploy.plan.huffman import encode
from tinydeploy.plan.select import Goal
from tinydeploy.targets import load_target
from tinydeploy.verification import verify

DECODER = r"""
#include <stdio.h>
#include <stdlib.h>
#include "td_kernels_huffman.h"

/* Reads layout, bits, count, bytes of code and of result, then the code; buffers to the byte. */
int main(void)
{
    int32_t given[5];
    if (fread(given, sizeof given, 1, stdin) != 1) {
        return 2;
    }
    uint8_t *coded = malloc((size_t)given[3]);
    uint8_t *to = malloc((size_t)given[4]);
    if (coded == NULL || to == NULL || fread(coded, 1, (size_t)given[3], stdin) != (size_t)given[3]) {
        return 2;
    }
    for (int32_t i = 0; i < given[4]; i++) {
        to[i] = 0x5a;
    }
    if (given[0]) {
        td_huffman_words(coded, given[2], given[1], (int32_t *)(void *)to);
    } else {
        td_huffman_stream(coded, given[2], given[1], to);
    }
    fwrite(to, 1, (size_t)given[4], stdout);
    return 0;
}
"""


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("decoder")
    for name in ("td_kernels.h", "td_kernels_huffman.h"):
        (folder / name).write_text(kernel_text(name))
    (folder / "main.c").write_text(DECODER)
    flags = ("-std=c99", "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    subprocess.run([*toolchain().command, *flags, "main.c", "-o", "decoder"], cwd=folder, check=True)
    return folder / "decoder"


def decoded(program: Path, *, words: bool, bits: int, count: int, coded: bytes, size: int) -> bytes:
    head = np.array([words, bits, count, len(coded), size], np.int32).tobytes()
    # Leaks are looked for with ptrace, which containers forbid.
    environment = {"ASAN_OPTIONS": "detect_leaks=0"}
    done = subprocess.run([program], input=head + coded, capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def symbols_of(bits: int, count: int, kind: str) -> np.ndarray:
    rng = np.random.default_rng((bits, count))
    if kind == "one symbol":
        return np.full(count, (1 << bits) - 1, np.uint8)
    if kind == "fibonacci":
        shares = np.array([1.618**-i for i in range(1 << bits)])
    else:
        shares = rng.dirichlet(np.full(1 << bits, SKEWED if kind == "skewed" else EVEN))
    return rng.choice(1 << bits, count, p=shares / shares.sum()).astype(np.uint8)


@needs_compiler
@pytest.mark.parametrize("kind", ["skewed", "even", "one symbol", "fibonacci"])
@pytest.mark.parametrize("bits", range(1, 8))
def test_the_decoder_in_c_gives_the_packed_indices(decoder: Path, bits: int, kind: str) -> None:
    for count in (1, 7, 64, 4092):
        symbols = symbols_of(bits, count, kind)
        coded = encode(symbols, 1 << bits)
        ranks = np.argsort(coded.order).astype(np.uint8)[symbols]
        packed = bit_stream(ranks, bits).tobytes()
        given = {"bits": bits, "coded": coded.data.tobytes()}
        assert decoded(decoder, words=False, count=count, size=len(packed), **given) == packed
        if count % 4 == 0:
            laid = field_words(ranks.reshape(-1, 4), bits).astype(np.int32).tobytes()
            assert decoded(decoder, words=True, count=count // 4, size=len(laid), **given) == laid


def coded_options(target: str, optimize: str, **kernels: bool) -> ExportOptions:
    return ExportOptions("net", target, optimize, "0" * 64, codebooks=HUFFMAN, **kernels)


@pytest.fixture(params=thinned(["dsp", "portable", "narrow"], 3))
def coded_on_host(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Host builds with coded indices, by the kernels of each kind of core that unpack."""
    kind = str(request.param)
    dear = {"dsp": math.inf}.get(kind, 0.0)
    monkeypatch.setitem(project.GOALS, "balanced", Goal(spare_bytes=1 << 20, cycles_a_byte=dear))
    monkeypatch.setattr("tinydeploy.plan.kernels.formed_trios", unpacking_trios)
    options = coded_options("host", "balanced", **({} if kind == "portable" else {kind: True}))
    monkeypatch.setattr("native.project_of", lambda graph, n="net": coded_project(graph, options))
    return kind


def coded_project(graph: Graph, options: ExportOptions) -> Project:
    try:
        return make_project(graph, options)
    except DeployError as error:
        assert "no layer's kernel reads codebook indices" in str(error)
        pytest.skip("whole weights take no more flash here")


@needs_compiler
@pytest.mark.usefixtures("coded_on_host")
@pytest.mark.parametrize("seed", seeds(0, 2))
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["codebook 3", "codebook 4", "codebook 7"])
def test_a_layer_with_decoded_indices(name: str, kind: str, seed: int, tmp_path: Path) -> None:
    assert_equals_engine(form_case(name, kind, 700 + seed), tmp_path)


@needs_compiler
@pytest.mark.parametrize("bits", thinned([3, 4], 2))
def test_a_network_with_decoded_indices(coded_on_host: str, bits: int, tmp_path: Path) -> None:
    graph = network(bits, channels=16)
    assert_equals_engine(graph, tmp_path)
    options = coded_options(
        "host", "balanced", **({coded_on_host: True} if coded_on_host != "portable" else {})
    )
    model = make_project(graph, options).model
    assert model.coding is not None
    assert model.coding.layers == 4


def scrambling_main(made: Project) -> str:
    """C that decodes twice, with other contents of the RAM between, and compares with what Python packed."""
    checks, scrambles, expected = [], [], []
    for layer, c in coded_constants(made.model.layers):
        place = layer.expression("net", c)
        numbers = ", ".join(str(int(v)) for v in c.data.reshape(-1))
        expected.append(f"static const {c.ctype} expected_{place}[] = {{ {numbers} }};")
        checks.append(f"    bad |= memcmp({place}, expected_{place}, sizeof {place});")
        checks.append(f"    bad |= sizeof {place} != sizeof expected_{place};")
        scrambles.append(f"    memset({place}, 0xa5, sizeof {place});")
    return "\n".join(
        [
            '#include "net.c"',
            "#include <string.h>",
            *expected,
            "int main(void)\n{\n    int bad = 0;",
            *("    net_init();", *checks, *scrambles, "    net_init();", *checks),
            "    return bad != 0;\n}\n",
        ]
    )


@needs_compiler
@pytest.mark.parametrize(("bits", "dsp"), by_turns([1, 3, 4, 6], [False, True]))
def test_decoding_twice_gives_the_same_whatever_was_in_the_ram(bits: int, dsp: bool, tmp_path: Path) -> None:
    made = make_project(network(bits, channels=12), coded_options("host", "balanced", dsp=dsp))
    folder = write(made, tmp_path)
    (folder / "main.c").write_text(scrambling_main(made))
    command = [
        *find_toolchain(load_target("host").core).command,
        "-std=c99",
        "-O1",
        "main.c",
        "net_weights.c",
    ]
    subprocess.run([*command, "-o", "main"], cwd=folder, check=True)
    assert subprocess.run([folder / "main"], check=False).returncode == 0


def job(graph: Graph, core: str, optimize: str, compiler: str | None = None) -> Job:
    found = load_target(core).core
    return Job(graph, coded_options(core, optimize, dsp=found.dsp, narrow=found.narrow), found, compiler)


@needs_emulator
@pytest.mark.parametrize(
    ("core", "optimize"),
    by_turns(["cortex-m4", "cortex-m0plus", "rv32imc"], ["balanced", "flash"], every=2),
)
def test_on_a_core(core: str, optimize: str) -> None:
    """0 mismatches where NAME_run decodes and where NAME_init did, over any contents of the arena."""
    graph = network(4, channels=24)
    made = job(graph, core, optimize)
    result = verify(made, core, telling_inputs(graph, samples=1), None)
    m = result.measurement
    assert result.ok, (result.mismatches, m.faults, m.float_symbols)
    assert m.project.model.coding is not None and m.init_instructions is not None
    assert m.init_instructions > 5 * sum(c.data_bytes for _, c in coded_constants(m.project.model.layers))
    # What was decoded at start-up is not decoded again in the inference.
    assert m.per_function["net_run"] < m.init_instructions / 20


@needs_emulator
@pytest.mark.slow
@pytest.mark.parametrize("core", ["cortex-m4", "cortex-m0plus"])
def test_with_the_other_compiler(core: str) -> None:
    graph = network(3, channels=24)
    result = verify(job(graph, core, "balanced", "zig"), core, telling_inputs(graph, samples=1), None)
    assert result.ok, (result.mismatches, result.measurement.faults)


@needs_emulator
def test_a_core_that_was_started_twice_computes_the_same(tmp_path: Path) -> None:
    graph = network(4, channels=16)
    found = job(graph, "cortex-m4", "balanced")
    made = make_project(graph, found.options)
    folder = write(made, tmp_path / "project")
    firmware = build(
        folder, model_abi(made), found.core, find_toolchain(found.core, None), tmp_path / "build"
    )
    machine, x = Machine(firmware), telling_inputs(graph, samples=1)[0][0].tobytes()
    first, second = machine.run((x,), count=True), machine.run((x,), count=True)
    assert first.outputs == second.outputs
    assert first.init_instructions == second.init_instructions
    assert first.faults == second.faults == ()
