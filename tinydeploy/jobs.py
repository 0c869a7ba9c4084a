"""A model and a target as a job that can be built and run."""

from __future__ import annotations

from tinydeploy.backends.c.project import ExportOptions
from tinydeploy.backends.c.syntax import check_name
from tinydeploy.data import random_samples
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import Array
from tinydeploy.measure import Job, Progress, require_optimize, silent
from tinydeploy.model import Model
from tinydeploy.targets import Target
from tinydeploy.tuning import autotuned

SEED = 0


def export_options(model: Model, target: Target, name: str | None, optimize: str) -> ExportOptions:
    """What a model is exported for; raises DeployError for a name or a goal that cannot be."""
    require_optimize(optimize)
    chosen = model.default_name if name is None else check_name(name)
    core = target.core
    return ExportOptions(chosen, target.name, optimize, model.sha256, core.dsp, narrow=core.narrow)


def make_job(
    model: Model,
    target: Target,
    name: str | None,
    optimize: str,
    compiler: str | None = None,
    *,
    autotune: bool = False,
    progress: Progress = silent,
) -> Job:
    """The job of a model on a target, with `autotune` by measured costs of its kernels.

    Raises:
        DeployError: the name, the goal, or what `autotuned` refuses.
    """
    options = export_options(model, target, name, optimize)
    job = Job(model.graph, options, target.core, compiler, target.board)
    sample = first_sample(model.graph) if autotune else ()
    return autotuned(job, target.name, sample, progress=progress) if autotune else job


def first_sample(graph: Graph) -> tuple[Array, ...]:
    """One seeded random sample of each input."""
    return tuple(x[:1] for x in random_samples(graph, 1, SEED))
