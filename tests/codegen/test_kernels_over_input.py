"""Depthwise layers for the DSP extension that write over their own input, in the arena where they do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graphs import GraphBuilder, depthwise_conv_2d, relu
from kernel_cases import tuned
from native import assert_equals_engine, needs_compiler, telling_inputs
from shared import model_path, needs_data
from sweeps import seeds

from tinydeploy import api
from tinydeploy.backends.c.project import ExportOptions, Project, lower_project, make_project
from tinydeploy.errors import DeployError
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.op import Op, Site
from tinydeploy.ir.verify import verify as verify_graph
from tinydeploy.measure import Job
from tinydeploy.ops import Activation, Padding
from tinydeploy.plan import dsp
from tinydeploy.targets import load_target
from tinydeploy.verification import verify

OVER = (dsp.DEPTHWISE_CARRIED, dsp.DEPTHWISE_TAPS_BY_PIXEL)
GOAL = "ram"


@pytest.fixture(autouse=True)
def no_other_kernel_that_is_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planner takes these only where they lower the peak; here wherever they can compute the layer."""
    every = dsp.kernels_for

    def only_over(op: Op, site: Site, *, as_stored: bool = False) -> list[dsp.DspKernel]:
        found = every(op, site, as_stored=as_stored)
        return [k for k in found if k.name in OVER] or found

    monkeypatch.setattr(dsp, "kernels_for", only_over)


def project(graph: Graph, name: str = "net") -> Project:
    return make_project(graph, ExportOptions(name, "host", GOAL, "0" * 64, dsp=True))


def case(kernel: str, seed: int) -> Graph:
    """RELU, the depthwise layer over what it gave, RELU; scales, zero points and borders of every kind."""
    rng = np.random.default_rng((OVER.index(kernel), seed))
    for _ in range(400):
        b = GraphBuilder(int(rng.integers(1 << 30)))
        given = _carried(rng) if kernel == dsp.DEPTHWISE_CARRIED else _by_pixel(rng)
        channels = int(rng.choice([4, 5, 6, 7, 8, 11, 12]))
        shape = (int(rng.choice([1, 1, 2])), int(rng.integers(1, 15)), int(rng.integers(1, 12)), channels)
        per_channel, bias = bool(rng.random() < 0.7), bool(rng.random() < 0.8)
        try:
            x = relu(b, shape=shape, activation=Activation.NONE)
            y = depthwise_conv_2d(b, x=x, per_channel=per_channel, bias=bias, **given)
            graph = tuned(
                b.graph(y),
                inputs=None,
                output=int(rng.choice([-128, 127, rng.integers(-128, 128)])),
                factor=2.0 ** (rng.uniform(-10, 10) if rng.random() < 0.3 else rng.uniform(-1, 1)),
            )
            verify_graph(graph)
        except DeployError:
            continue
        if lies_over(graph, kernel):
            return graph
    raise AssertionError(f"no {kernel} in 400 tries")


def lies_over(graph: Graph, kernel: str) -> bool:
    """Whether the layer has the kernel, and its output shares bytes with its input."""
    model = lower_project(graph, ExportOptions("net", "host", GOAL, "", dsp=True))
    if model.layers[1].choice.name != kernel:
        return False
    node = graph.nodes[1]
    start, other = model.plan.offset_of(node.outputs[0]), model.plan.offset_of(str(node.inputs[0]))
    ends = start + graph.value(node.outputs[0]).bytes, other + graph.value(str(node.inputs[0])).bytes
    return start < ends[1] and other < ends[0]


def _activation(rng: np.random.Generator) -> Activation:
    return list(Activation)[int(rng.integers(len(Activation)))]


def _carried(rng: np.random.Generator) -> dict[str, Any]:
    """Borders may be on one side alone, as long as the output is as large as the input."""
    top, left = int(rng.integers(0, 3)), int(rng.integers(0, 3))
    padding = "same" if rng.random() < 0.5 else Padding(top, 2 - top, left, 2 - left)
    return {"kernel": (3, 3), "padding": padding, "activation": _activation(rng)}


def _by_pixel(rng: np.random.Generator) -> dict[str, Any]:
    def pair(high: int) -> tuple[int, int]:
        return int(rng.integers(1, high)), int(rng.integers(1, high))

    padding = ("same", "valid", Padding(*(int(n) for n in rng.integers(0, 3, 4))))[int(rng.integers(3))]
    return {
        "kernel": (pair(6), (5, 1), (1, 4))[int(rng.integers(3))],
        "strides": pair(3),
        "dilations": pair(3) if rng.random() < 0.3 else (1, 1),
        "padding": padding,
        "activation": _activation(rng),
    }


@needs_compiler
@pytest.mark.parametrize("seed", seeds(1, 40))
@pytest.mark.parametrize("kernel", OVER)
def test_a_sweep_as_plain_c(kernel: str, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("native.project_of", project)
    assert_equals_engine(case(kernel, seed), tmp_path)


@pytest.mark.parametrize("seed", seeds(1, 12))
@pytest.mark.parametrize("kernel", OVER)
def test_a_sweep_on_a_core(kernel: str, seed: int) -> None:
    graph = case(kernel, 1000 + seed)
    options = ExportOptions("net", "cortex-m4", GOAL, "0" * 64, dsp=True)
    job = Job(graph, options, load_target("cortex-m4").core, None)
    result = verify(job, "cortex-m4", telling_inputs(graph, samples=1), None)
    assert result.ok, (result.mismatches, result.measurement.faults)
    assert result.measurement.arena_touched == result.measurement.project.plan.arena_bytes


@needs_data
@pytest.mark.parametrize(
    ("name", "kernel", "arena"),
    [("kws", dsp.DEPTHWISE_CARRIED, 8_512), ("sww", dsp.DEPTHWISE_TAPS_BY_PIXEL, 4_096)],
)
def test_they_are_taken_where_they_lower_the_peak(
    name: str, kernel: str, arena: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    graph = api.load_model(model_path(name)).graph
    small, fast = (
        lower_project(graph, ExportOptions("net", "cortex-m4", goal, "", dsp=True))
        for goal in ("ram", "latency")
    )
    assert kernel in {layer.choice.name for layer in small.layers}
    assert small.plan.arena_bytes <= arena < fast.plan.arena_bytes
    assert not {layer.choice.name for layer in fast.layers} & set(OVER)


def test_they_are_not_taken_where_they_lower_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A far larger layer is the peak."""
    monkeypatch.undo()
    b = GraphBuilder(3)
    small = depthwise_conv_2d(b, x=relu(b, shape=(1, 25, 5, 8)), padding="same")
    graph = b.graph(depthwise_conv_2d(b, x=small, kernel=(1, 1), multiplier=40, padding="valid"))
    model = lower_project(graph, ExportOptions("net", "cortex-m4", GOAL, "", dsp=True))
    assert not {layer.choice.name for layer in model.layers} & set(OVER)
