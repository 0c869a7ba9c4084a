"""The kernels for cores without a long multiplication equal the engine: as plain C, and on cores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dsp_cases import FAMILIES, POOLS, choices_of, dsp_case
from graphs import every_op_graph, single_op_graph
from kernel_cases import KERNELS, tuned
from native import assert_equals_engine, needs_compiler, telling_inputs
from sweeps import by_turns, seeds, thinned
from wiring_cases import random_network

from tinydeploy.backends.c import project
from tinydeploy.backends.c.project import ExportOptions, make_project
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import Quantization, constant
from tinydeploy.ir.verify import site_of
from tinydeploy.measure import Job
from tinydeploy.ops import Conv2D
from tinydeploy.plan import trio
from tinydeploy.plan.select import Goal
from tinydeploy.plan.trio_linear import trio_dot
from tinydeploy.targets import load_target
from tinydeploy.verification import verify

CASES = [name for name in KERNELS if name.startswith(("CONV_2D", "DEPTHWISE", "FULLY_CONNECTED", "ADD"))]
KINDS = [name for name in FAMILIES if name not in ("winograd", *POOLS)]
"""The families that have a kernel for narrow cores."""
MOST_OF_A_SUM = 2**20 // 128 - 1
"""The largest sum of |w| whose products with int8 inputs stay below 2**20 in size."""


def options(target: str) -> ExportOptions:
    return ExportOptions("net", target, "latency", "0" * 64, narrow=True)


@pytest.fixture(autouse=True)
def fast_kernels_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """What RAM the fast kernels cost must not hide them from these tests."""
    monkeypatch.setitem(project.GOALS, "latency", Goal(spare_bytes=1 << 20))


@pytest.fixture
def plain_c(monkeypatch: pytest.MonkeyPatch) -> None:
    """Host builds take these kernels, too."""
    monkeypatch.setattr("native.project_of", lambda graph, n="net": make_project(graph, options("host")))


@needs_compiler
@pytest.mark.usefixtures("plain_c")
@pytest.mark.parametrize("name", thinned(CASES, 48))
def test_as_plain_c_under_sanitizers(name: str, tmp_path: Path) -> None:
    assert_equals_engine(KERNELS[name](), tmp_path)


@needs_compiler
@pytest.mark.usefixtures("plain_c")
@pytest.mark.parametrize("seed", seeds(1, 40))
@pytest.mark.parametrize("family", thinned(KINDS, 2))
def test_a_sweep_as_plain_c(family: str, seed: int, tmp_path: Path) -> None:
    assert_equals_engine(dsp_case(family, seed, narrow=True), tmp_path)


@needs_compiler
@pytest.mark.usefixtures("plain_c")
@pytest.mark.parametrize("level", thinned(["-Os", "-O0", "-O2", "-O3"], 4))
def test_any_optimisation_level(level: str, tmp_path: Path) -> None:
    assert_equals_engine(every_op_graph(), tmp_path, level)


@needs_compiler
@pytest.mark.slow
@pytest.mark.usefixtures("plain_c")
@pytest.mark.parametrize("seed", range(12))
def test_networks_whose_layers_write_over_their_inputs(seed: int, tmp_path: Path) -> None:
    assert_equals_engine(random_network(seed), tmp_path, "-O0")


def proved(graph: Graph, core: str, compiler: str | None = None) -> None:
    job = Job(graph, options(core), load_target(core).core, compiler)
    result = verify(job, core, telling_inputs(graph, samples=1), None)
    assert result.ok, (result.mismatches, result.measurement.faults)
    m = result.measurement
    # Of the rows for pixels at a border, some pixel of a trio may need none.
    slack = sum(trio.edge_bytes(n.op, site_of(graph, n)) for n in graph.nodes if isinstance(n.op, Conv2D))
    assert m.project.plan.arena_bytes - slack <= m.arena_touched <= m.project.plan.arena_bytes


@pytest.mark.parametrize(
    ("name", "core"), by_turns(CASES[::5], ["cortex-m0plus", "cortex-m3", "rv32imc"], every=8)
)
def test_on_a_core(name: str, core: str) -> None:
    proved(KERNELS[name](), core)


@pytest.mark.parametrize("seed", seeds(1, 16))
@pytest.mark.parametrize("family", thinned(KINDS, 2, first=1))
def test_a_sweep_on_the_core_with_assembly(family: str, seed: int) -> None:
    proved(dsp_case(family, 1000 + seed, narrow=True), "cortex-m0plus")


@pytest.mark.slow
@pytest.mark.parametrize("family", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_with_the_other_compiler(family: str, seed: int) -> None:
    proved(dsp_case(family, 2000 + seed, narrow=True), "cortex-m0plus", "zig")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_whole_networks_on_a_core(seed: int) -> None:
    proved(random_network(seed), "cortex-m0plus")


def heavy(kind: str, sums: Sequence[int], sharpness: int = 1, **given: Any) -> Graph:
    """A layer whose output channels have weights of +-127 that come to these sums of |w|; signs by turns
    in every second channel. With a sharpness of 1 no output saturates."""
    graph = single_op_graph(kind, 1, bias=False, per_channel=False, **given)
    name = graph.nodes[0].inputs[1] or ""
    weights = graph.value(name)
    depth = np.prod(weights.shape) // len(sums)
    rows = np.zeros((len(sums), depth), np.int8)
    for channel, total in enumerate(sums):
        full, rest = divmod(total, 127)
        rows[channel, :full] = 127
        if rest:
            rows[channel, full] = rest
        if channel % 2:
            rows[channel, ::2] *= -1
    data = rows.T if kind == "DEPTHWISE_CONV_2D" else rows
    y = graph.value(graph.outputs[0])
    scale = graph.value(graph.inputs[0]).quant.scale * 0.01 * max(sums) / sharpness
    changed = {
        name: constant(name, np.ascontiguousarray(data).reshape(weights.shape), Quantization((0.01,), (0,))),
        y.name: replace(y, quantization=Quantization((float(np.float32(scale)),), (-3,))),
    }
    return tuned(replace(graph, values={**graph.values, **changed}), inputs=-5)


def pointwise(total: int, depth: int, sharpness: int = 1) -> Graph:
    given: dict[str, Any] = {"shape": (1, 4, 5, depth), "kernel": (1, 1), "padding": "valid", "outputs": 4}
    return heavy("CONV_2D", [total] * 4, sharpness, **given)


def segments(graph: Graph) -> int:
    node = graph.nodes[0]
    assert isinstance(node.op, Conv2D)
    return trio_dot(node.op, site_of(graph, node)).segments


@needs_compiler
@pytest.mark.usefixtures("plain_c")
@pytest.mark.parametrize(
    ("total", "depth", "expected"),
    [
        (MOST_OF_A_SUM, 65, 1),
        (MOST_OF_A_SUM + 1, 65, 2),
        (130 * 127, 130, 3),
    ],
)
@pytest.mark.parametrize("sharpness", [1, 16])
def test_sums_at_the_bound_of_21_bits(
    total: int, depth: int, expected: int, sharpness: int, tmp_path: Path
) -> None:
    """With all inputs at -128, and at 127, the sums are the largest that the proof allows."""
    graph = pointwise(total, depth, sharpness)
    assert segments(graph) == expected
    assert_equals_engine(graph, tmp_path)


@pytest.mark.parametrize("total", [MOST_OF_A_SUM, MOST_OF_A_SUM + 1])
def test_sums_at_the_bound_on_a_core(total: int) -> None:
    proved(pointwise(total, 65), "cortex-m0plus")


def depthwise(total: int) -> Graph:
    return heavy("DEPTHWISE_CONV_2D", [total] * 4, shape=(1, 14, 7, 4), kernel=(13, 5), padding="valid")


def takes_depthwise(graph: Graph) -> bool:
    return trio.DEPTHWISE in {choice.name for choice in choices_of(graph, narrow=True)}


@needs_compiler
@pytest.mark.usefixtures("plain_c")
def test_depthwise_at_the_bound(tmp_path: Path) -> None:
    graph = depthwise(MOST_OF_A_SUM)
    assert takes_depthwise(graph)
    assert_equals_engine(graph, tmp_path)


def test_depthwise_is_refused_beyond_the_bound() -> None:
    assert not takes_depthwise(depthwise(MOST_OF_A_SUM + 1))


@needs_compiler
@pytest.mark.usefixtures("plain_c")
@pytest.mark.parametrize("part", [1, 2, 3])
def test_depthwise_with_parts_of_bands(part: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planes for fewer rows than a band has, with and without a rest."""
    graph = single_op_graph(
        "DEPTHWISE_CONV_2D", 3, shape=(2, 14, 6, 5), kernel=(3, 3), padding="same", strides=(1, 2)
    )
    kernels = trio.kernels_for

    def lean(*given: Any) -> list[Any]:
        found = kernels(*given)
        return [replace(k, block=part, in_place=False) for k in found[:1]]

    monkeypatch.setattr(trio, "kernels_for", lean)
    assert_equals_engine(graph, tmp_path)


@needs_compiler
@pytest.mark.parametrize("name", thinned(CASES, 72))
def test_the_portable_kernels_without_a_long_multiplication(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("native.WARNINGS", ("-DTD_NO_LONG_MULTIPLY", "-Wall", "-Wextra", "-Werror"))
    assert_equals_engine(KERNELS[name](), tmp_path)
