"""The generated C equals the integer engine on every emulated core, and nothing in it faults on silicon."""

from __future__ import annotations

import importlib.util
import shutil

import pytest
from emulate_support import COMPILERS, CORES, EVERY_CORE
from graphs import every_op_graph
from kernel_cases import KERNELS
from native import telling_inputs
from random_cases import KINDS, random_case
from sweeps import by_turns
from wiring_cases import WIRING, random_network

from tinydeploy.backends.c.project import ExportOptions
from tinydeploy.ir.graph import Graph
from tinydeploy.measure import Job
from tinydeploy.verification import verify

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("unicorn") is None
    or (shutil.which("arm-none-eabi-gcc") is None and importlib.util.find_spec("ziglang") is None),
    reason="the extra 'emulate' or a compiler for Arm is not installed",
)

PICKED = (
    "CONV_2D: 10x4 same stride 2",
    "CONV_2D: 3 groups of 5 outputs, stride 2",
    "CONV_2D: left shift 2",
    "CONV_2D: right shift 31, high",
    "DEPTHWISE_CONV_2D: multiplier 3, per tensor, stride 2",
    "DEPTHWISE_CONV_2D: padding at the top left",
    "FULLY_CONNECTED: per channel, several rows",
    "FULLY_CONNECTED: zero points 127 and -128",
    "AVERAGE_POOL_2D: uneven padding",
    "MAX_POOL_2D: 3x3 same stride 2",
    "ADD: alternating",
    "ADD: constant (5,) as operand 0",
    "MUL: every pair, output scale times 0.02",
    "CONCATENATION: axis 2, unequal scales",
    "PAD: every axis",
    "MEAN: axes (1, 3) of (2, 3, 4, 5), kept",
    "SOFTMAX: 300 classes",
    "SOFTMAX: several rows",
    "LOGISTIC: scale 0.05",
    "RELU: relu6, output scale times 3.0",
    "QUANTIZE: uint8 to int8, output scale times 0.3",
    "RESHAPE: from input to output",
)
SLOW_ON = ("cortex-m3", "cortex-m7", "cortex-m33", "rv32imc")
"""Cores on which the picked kernels run in the whole suite only."""


def assert_verified(
    graph: Graph, core: str, *, optimize: str = "latency", compiler: str | None = None
) -> None:
    """0 mismatches, no fault, no floating point, odd addresses, and the whole arena and no more."""
    described = EVERY_CORE[core]
    job = Job(graph, ExportOptions("net", core, optimize, "0" * 64, described.dsp), described, compiler)
    result = verify(job, core, telling_inputs(graph, samples=1), None)
    measured = result.measurement
    assert result.mismatches == 0
    assert measured.faults == ()
    assert measured.float_symbols == ()
    assert measured.unaligned_ok
    assert measured.arena_touched == measured.project.plan.arena_bytes
    assert result.ok


@pytest.mark.parametrize(("name", "core"), by_turns(PICKED, ["cortex-m0plus", "cortex-m4"], every=2))
def test_kernel(core: str, name: str) -> None:
    assert_verified(KERNELS[name](), core)


@pytest.mark.slow
@pytest.mark.parametrize("name", PICKED)
@pytest.mark.parametrize("core", SLOW_ON)
def test_kernel_on_the_other_cores(core: str, name: str) -> None:
    assert_verified(KERNELS[name](), core)


@pytest.mark.parametrize(("core", "optimize"), by_turns(EVERY_CORE, ["latency", "flash"], every=2))
def test_every_op(core: str, optimize: str) -> None:
    assert_verified(every_op_graph(), core, optimize=optimize)


@pytest.mark.slow
@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("core", CORES)
def test_every_op_of_every_compiler(core: str, compiler: str) -> None:
    assert_verified(every_op_graph(3), core, compiler=compiler)


@pytest.mark.slow
@pytest.mark.parametrize("name", WIRING)
def test_wiring(name: str) -> None:
    assert_verified(WIRING[name](), list(EVERY_CORE)[sum(map(ord, name)) % len(EVERY_CORE)])


@pytest.mark.slow
@pytest.mark.parametrize("seed", [100, 101])
@pytest.mark.parametrize("kind", KINDS)
def test_random_parameters(kind: str, seed: int) -> None:
    assert_verified(random_case(kind, seed), list(EVERY_CORE)[(seed + KINDS.index(kind)) % len(EVERY_CORE)])


@pytest.mark.slow
@pytest.mark.parametrize("core", EVERY_CORE)
def test_random_network(core: str) -> None:
    assert_verified(random_network(50 + list(EVERY_CORE).index(core)), core)
