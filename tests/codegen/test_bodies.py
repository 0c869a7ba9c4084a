"""Layers share machine code: of one shape always, of any shape where flash is asked for and it is smaller."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from graphs import GraphBuilder, conv_2d, depthwise_conv_2d
from native import assert_equals_engine, needs_compiler, telling_inputs
from sweeps import by_turns
from wiring_cases import random_network

from tinydeploy.backends.c import bodies
from tinydeploy.backends.c.project import ExportOptions, Project, make_project
from tinydeploy.ir.graph import Graph
from tinydeploy.measure import Job
from tinydeploy.targets import load_target
from tinydeploy.verification import verify


def exported(graph: Graph, optimize: str, *, dsp: bool = True) -> Project:
    return make_project(graph, ExportOptions("net", "cortex-m4", optimize, "0" * 64, dsp=dsp))


def convolutions(*shapes: tuple[int, tuple[int, int]], depthwise: bool = False) -> Graph:
    """A chain of convolutions, by outputs and kernel, with a depthwise layer after each where wanted."""
    b = GraphBuilder(4)
    y = b.input((1, 6, 6, 8))
    for outputs, kernel in shapes:
        y = conv_2d(b, x=y, outputs=outputs, kernel=kernel, padding="same")
        if depthwise:
            y = depthwise_conv_2d(b, x=y, padding="same")
    return b.graph(y)


def one_scale(graph: Graph) -> Graph:
    """All activations with one scale and zero point, so that equal layers have equal shapes."""
    first = graph.value(graph.inputs[0]).quantization
    values = {n: v if v.is_constant else replace(v, quantization=first) for n, v in graph.values.items()}
    return replace(graph, values=values)


MANY = ((8, (3, 3)), (12, (1, 1)), (8, (3, 1)), (4, (1, 1)), (8, (1, 3)), (8, (5, 5)))


def test_layers_of_one_shape_share_a_body_for_every_goal() -> None:
    graph = one_scale(convolutions((8, (3, 3)), (8, (3, 3)), (8, (3, 3))))
    for optimize in ("latency", "balanced", "ram", "flash"):
        (body,) = exported(graph, optimize).model.bodies
        assert body.layers == (0, 1, 2)
        assert not body.any_shape


def test_a_layer_that_reads_another_zero_point_has_a_body_of_its_own() -> None:
    graph = one_scale(convolutions((8, (3, 3)), (8, (3, 3)), (8, (3, 3))))
    middle = graph.value(graph.nodes[1].outputs[0])
    other = replace(middle.quantization, zero_points=(middle.quant.zero_point ^ 1,))  # type: ignore[type-var]
    graph = replace(graph, values={**graph.values, middle.name: replace(middle, quantization=other)})
    # What a layer writes is scaled by its own constants, which are no part of its shape.
    assert [b.layers for b in exported(graph, "latency").model.bodies] == [(0, 1)]


def test_only_flash_gives_up_constant_shapes() -> None:
    graph = convolutions(*MANY, depthwise=True)
    assert not any(b.any_shape for b in exported(graph, "balanced").model.bodies)
    found = [b.name for b in exported(graph, "flash").model.bodies if b.any_shape]
    assert found == ["net_any_conv_2d", "net_any_depthwise_conv_2d"]


def test_two_shapes_are_too_few_to_give_them_up() -> None:
    graph = convolutions((8, (3, 3)), (12, (1, 1)))
    assert not any(b.any_shape for b in exported(graph, "flash").model.bodies)


def flash_bytes(graph: Graph) -> int:
    where = load_target("cortex-m4")
    job = Job(graph, ExportOptions("net", "cortex-m4", "flash", "0" * 64, dsp=True), where.core)
    result = verify(job, "cortex-m4", telling_inputs(graph, samples=1), None)
    assert result.ok, (result.mismatches, result.measurement.faults)
    assert result.measurement.sizes is not None
    return result.measurement.sizes.flash


def test_the_body_for_any_shape_is_smaller_in_the_firmware(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = convolutions(*MANY, depthwise=True)
    shared = flash_bytes(graph)
    monkeypatch.setattr(bodies, "_CODE", {})
    assert shared < flash_bytes(graph)


@needs_compiler
@pytest.mark.parametrize(("optimize", "same"), by_turns(["latency", "flash"], [True, False]))
def test_shared_bodies_equal_the_engine(
    same: bool, optimize: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = one_scale(convolutions(*[(8, (3, 3))] * 4)) if same else convolutions(*MANY, depthwise=True)
    monkeypatch.setattr("native.project_of", lambda graph, n="net": exported(graph, optimize))
    assert exported(graph, optimize).model.bodies or optimize == "latency"
    assert_equals_engine(graph, tmp_path)


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_networks_for_flash_equal_the_engine(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "_any_shape_is_smaller", lambda alike, shapes: len(alike) > 1)
    monkeypatch.setattr("native.project_of", lambda graph, n="net": exported(graph, "flash", dsp=False))
    assert_equals_engine(random_network(seed), tmp_path)
