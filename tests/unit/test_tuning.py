"""--autotune: what is measured, what follows from it, and where it is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from graphs import GraphBuilder, conv_2d, depthwise_conv_2d

from tinydeploy.backends.c.project import ExportOptions, exported_graph, make_project
from tinydeploy.errors import DeployError, MissingExtraError
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.verify import site_of
from tinydeploy.jobs import first_sample
from tinydeploy.measure import Job, measure
from tinydeploy.plan import dsp
from tinydeploy.plan.kernels import PORTABLE
from tinydeploy.plan.measured import KernelCost, MeasuredCosts, layer_key
from tinydeploy.plan.select import GOALS, Goal, Options, layer_options, select_kernels
from tinydeploy.targets import load_target
from tinydeploy.tuning import autotuned

AMPLE = Goal(spare_bytes=1 << 20)


def network() -> Graph:
    """A layer with four candidates, and one with bands."""
    b = GraphBuilder(3)
    y = conv_2d(b, x=b.input((1, 12, 12, 8)), outputs=8, kernel=(3, 3), padding="same")
    return b.graph(depthwise_conv_2d(b, x=y, padding="same"))


def job(graph: Graph, target: str = "nucleo-l4r5zi", optimize: str = "latency") -> Job:
    where = load_target(target)
    options = ExportOptions("net", target, optimize, "0" * 64, where.core.dsp)
    return Job(graph, options, where.core, board=where.board)


def costs(job: Job) -> MeasuredCosts:
    assert job.options.costs is not None
    return job.options.costs


def invented(graph: Graph, cycles: dict[str, int], flash: dict[str, int] | None = None) -> MeasuredCosts:
    """The same costs by kernel name for every layer."""
    found = {}
    for node in graph.nodes:
        for o in layer_options(graph, has_dsp=True)[node.name]:
            cost = KernelCost(cycles[o.name], (flash or {}).get(o.name, 0))
            found[layer_key(node, site_of(graph, node)), o.name, o.block] = cost
    return MeasuredCosts("cc", "here", found)


def options_of(graph: Graph) -> Options:
    return layer_options(exported_graph(graph), has_dsp=True)


def test_every_candidate_of_every_layer_is_measured() -> None:
    graph = network()
    done: list[tuple[str, int, int]] = []
    found = costs(autotuned(job(graph), "here", first_sample(graph), progress=lambda *s: done.append(s)))
    options = options_of(graph)
    assert len(found.by_kernel) == sum(map(len, options.values()))
    most = max(map(len, options.values()))
    assert [step for _, step, _ in done] == list(range(most + 1))
    for cost in found.by_kernel.values():
        assert cost.cycles > 0
        assert cost.flash_bytes > 0


@pytest.mark.slow
def test_what_was_measured_is_what_the_chosen_layer_takes() -> None:
    """Layer by layer, within what other neighbours do to the caches of the flash."""
    tuned = autotuned(job(network()), "here", first_sample(network()))
    m = measure(tuned, first_sample(network()), prove=False)
    for layer in m.project.model.layers:
        assert layer.choice.measured is not None
        ran = sum(c.total for name, c in m.latency.per_function.items() if layer.owns(name))
        assert ran == pytest.approx(layer.choice.measured.cycles, rel=0.02)


@pytest.mark.slow
def test_tuning_twice_gives_the_same_bytes() -> None:
    graph = network()
    first, second = (
        make_project(graph, autotuned(job(graph), "here", first_sample(graph)).options) for _ in range(2)
    )
    assert first.files == second.files


@pytest.mark.slow
def test_the_manifest_has_both_costs() -> None:
    graph = network()
    project = make_project(graph, autotuned(job(graph), "here", first_sample(graph)).options)
    manifest = json.loads(project.files["manifest.json"])
    assert manifest["kernels_measured"]["target"] == "here"
    assert manifest["kernels_measured"]["compiler"]
    for layer in manifest["layers"]:
        assert layer["cycles_estimated"] > 0
        assert layer["measured"]["cycles"] > 0
        assert f"{layer['measured']['cycles']:,} cycles measured" in layer["why"]
    assert "autotuned" in project.files["net.c"].split("*/", maxsplit=1)[0]


def test_measured_cycles_overrule_stored_ones() -> None:
    graph = network()
    stored = select_kernels(graph, has_dsp=True, goal=AMPLE)
    assert [k.name for k in stored.values()] == [dsp.WINOGRAD, dsp.DEPTHWISE]
    cycles = {dsp.WINOGRAD: 9, dsp.CONVOLUTION: 5, dsp.DEPTHWISE: 7, dsp.DEPTHWISE_CARRIED: 8, PORTABLE: 8}
    tuned = select_kernels(graph, has_dsp=True, goal=AMPLE, costs=invented(graph, cycles))
    assert [k.name for k in tuned.values()] == [dsp.CONVOLUTION, dsp.DEPTHWISE]


def test_flash_takes_the_smallest_kernel_that_was_measured() -> None:
    graph = network()
    cycles = {dsp.WINOGRAD: 1, dsp.CONVOLUTION: 2, dsp.DEPTHWISE: 3, dsp.DEPTHWISE_CARRIED: 4, PORTABLE: 4}
    flash = {
        dsp.WINOGRAD: 900,
        dsp.CONVOLUTION: 300,
        PORTABLE: 400,
        dsp.DEPTHWISE: 500,
        dsp.DEPTHWISE_CARRIED: 600,
    }
    tuned = select_kernels(graph, has_dsp=True, goal=GOALS["flash"], costs=invented(graph, cycles, flash))
    assert [k.name for k in tuned.values()] == [dsp.CONVOLUTION, PORTABLE]


def test_a_layer_that_changed_since_falls_back_to_stored_costs() -> None:
    cycles = {dsp.WINOGRAD: 9, dsp.CONVOLUTION: 5, dsp.DEPTHWISE: 7, dsp.DEPTHWISE_CARRIED: 8, PORTABLE: 8}
    measured = invented(network(), cycles)
    b = GraphBuilder(3)
    y = conv_2d(b, x=b.input((1, 12, 12, 8)), outputs=12, kernel=(3, 3), padding="same")
    pruned = b.graph(depthwise_conv_2d(b, x=y, padding="same"))
    chosen = select_kernels(pruned, has_dsp=True, goal=AMPLE, costs=measured)
    assert chosen == select_kernels(pruned, has_dsp=True, goal=AMPLE)


@pytest.mark.parametrize("target", ["host"])
def test_a_target_without_cycles_is_refused(target: str) -> None:
    with pytest.raises(DeployError, match="no model of the cycles"):
        autotuned(job(network(), target), target, first_sample(network()))


def test_without_a_compiler_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object) -> None:
        raise MissingExtraError("ziglang", "emulate", "a build")

    monkeypatch.setattr("tinydeploy.tuning.find_toolchain", absent)
    with pytest.raises(MissingExtraError):
        autotuned(job(network()), "here", first_sample(network()))


def test_kernels_that_do_not_agree_are_not_chosen_among(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = iter(range(100))

    def other(*args: object, **kwargs: object) -> object:
        m = measure(*args, **kwargs)  # type: ignore[arg-type]
        return replace(m, outputs=tuple(y + next(seen) for y in m.outputs))

    monkeypatch.setattr("tinydeploy.tuning.measure", other)
    with pytest.raises(DeployError, match="depend on the kernels"):
        autotuned(job(network()), "here", first_sample(network()))
