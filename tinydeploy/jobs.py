"""A model and a target as a job that can be built and run."""

from __future__ import annotations

from tinydeploy.backends.c.coded import AUTO, PACKED, require_codebooks
from tinydeploy.backends.c.project import ExportOptions, exported_graph, lower_project
from tinydeploy.backends.c.syntax import check_name
from tinydeploy.data import random_samples
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import Array
from tinydeploy.measure import Job, Progress, require_optimize, silent
from tinydeploy.model import Model
from tinydeploy.plan import Plan, plan_memory
from tinydeploy.targets import Target, load_target
from tinydeploy.tuning import autotuned
from tinydeploy.verdict import Limits

SEED = 0


def export_options(
    model: Model,
    target: Target,
    name: str | None,
    optimize: str,
    *,
    codebooks: str = PACKED,
    max_ram: int | None = None,
) -> ExportOptions:
    """What a model is exported for.

    Args:
        codebooks: how flash holds codebook indices.
        max_ram: bytes that are allowed, on top of what the board has.

    Raises:
        DeployError: a name, a goal or `codebooks` that cannot be.
    """
    require_optimize(optimize)
    require_codebooks(codebooks)
    chosen = model.default_name if name is None else check_name(name)
    core, ram = target.core, Limits(ram=max_ram).on(target.board).ram
    return ExportOptions(
        chosen,
        target.name,
        optimize,
        model.sha256,
        core.dsp,
        narrow=core.narrow,
        codebooks=codebooks,
        ram=ram if codebooks == AUTO else None,
    )


def make_job(
    model: Model,
    target: Target,
    name: str | None,
    optimize: str,
    compiler: str | None = None,
    *,
    autotune: bool = False,
    codebooks: str = PACKED,
    max_ram: int | None = None,
    progress: Progress = silent,
) -> Job:
    """The job of a model on a target, with `autotune` by measured costs of its kernels.

    Raises:
        DeployError: the name, the goal, `codebooks`, or what `autotuned` refuses.
    """
    options = export_options(model, target, name, optimize, codebooks=codebooks, max_ram=max_ram)
    job = Job(model.graph, options, target.core, compiler, target.board)
    sample = first_sample(model.graph) if autotune else ()
    return autotuned(job, target.name, sample, progress=progress) if autotune else job


def first_sample(graph: Graph) -> tuple[Array, ...]:
    """One seeded random sample of each input."""
    return tuple(x[:1] for x in random_samples(graph, 1, SEED))


def memory_plan(model: Model, target: str | None, optimize: str) -> tuple[Plan, int]:
    """The memory plan of a model, and the number of its layers.

    Args:
        target: whose kernels it is for; the portable ones where it is None, and the model may then be float.

    Raises:
        DeployError: an unknown target or goal, or what export refuses.
    """
    if target is None:
        # As it is exported: an output that is an input gets a place of its own.
        graph = exported_graph(model.graph)
        return plan_memory(graph), len(graph.nodes)
    lowered = lower_project(model.graph, export_options(model, load_target(target), None, optimize))
    return lowered.plan, len(lowered.graph.nodes)
