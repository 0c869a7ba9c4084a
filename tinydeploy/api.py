"""The Python API: each stage of the way from a model to a microcontroller as a plain function."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tinydeploy import evaluation, verification
from tinydeploy import profile as profiling
from tinydeploy.backends.c.project import ExportOptions, make_project
from tinydeploy.backends.c.syntax import check_name, name_from
from tinydeploy.data import fit_samples, random_samples, read_dataset
from tinydeploy.errors import DeployError
from tinydeploy.evaluation import Evaluation
from tinydeploy.export import DoesNotFitError, Export, require_limits, write_project
from tinydeploy.frontends.tflite import parse_tflite
from tinydeploy.ir import limits
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import Array
from tinydeploy.measure import Job, Progress, measure, require_optimize, silent
from tinydeploy.passes.constants import fold_constants
from tinydeploy.profile import Profile
from tinydeploy.targets import Target, load_target
from tinydeploy.verification import Verification

__all__ = [
    "DoesNotFitError",
    "Evaluation",
    "Export",
    "Model",
    "Profile",
    "Verification",
    "evaluate",
    "export_c",
    "load_model",
    "profile",
    "verify",
]

RANDOM_SAMPLES = 6
"""Seeded random samples of a verification without data; one all low and one all high come on top."""

SEED = 0


@dataclass(frozen=True)
class Model:
    """A model as it was read.

    Attributes:
        path: as the user gave it.
        sha256: of the file's bytes.
    """

    path: str
    graph: Graph
    sha256: str

    @property
    def default_name(self) -> str:
        """A C identifier made from the file's name."""
        return name_from(Path(self.path).stem)


def load_model(path: str | os.PathLike[str]) -> Model:
    """Reads a model file.

    Raises:
        DeployError: the file cannot be read, is damaged, or holds something unsupported.
    """
    file = Path(path)
    if file.suffix.lower() != ".tflite":
        raise DeployError(
            f"models of type {file.suffix or 'without a suffix'!r} are not read yet",
            where=str(path),
            hint="give an int8 .tflite file",
        )
    try:
        size = file.stat().st_size
        if size > limits.MAX_FILE_BYTES:
            raise DeployError(f"has {size} bytes; the limit is {limits.MAX_FILE_BYTES}", where=str(path))
        data = file.read_bytes()
    except OSError as error:
        raise DeployError(f"cannot be read ({error.strerror})", where=str(path)) from None
    graph = fold_constants(parse_tflite(data, name_from(file.stem), str(path)))
    return Model(str(path), graph, hashlib.sha256(data).hexdigest())


def export_c(
    model: Model,
    target: str,
    folder: str | os.PathLike[str],
    *,
    name: str | None = None,
    optimize: str = "latency",
    max_flash: int | None = None,
    max_ram: int | None = None,
) -> Export:
    """Writes a C project into `folder`, all files or none.

    Args:
        max_flash, max_ram: bytes; with one of them the project is built and measured first.

    Raises:
        DeployError: the model cannot be exported, or the folder cannot be written.
        DoesNotFitError: a limit is exceeded.
    """
    where = load_target(target)
    options = _options(model, where, name, optimize)
    project = make_project(model.graph, options)
    measurement = None
    if max_flash is not None or max_ram is not None:
        job = Job(model.graph, options, where.core)
        measurement = measure(job, _first_sample(model.graph), prove=False)
        require_limits(measurement, max_flash, max_ram)
    write_project(project, Path(folder))
    return Export(Path(folder), project, where, measurement)


def verify(
    model: Model,
    target: str,
    *,
    inputs: str | os.PathLike[str] | None = None,
    name: str | None = None,
    optimize: str = "latency",
    compiler: str | None = None,
    scale: float = 1.0,
    mean: float = 0.0,
    progress: Progress = silent,
) -> Verification:
    """Compares the emulated core with the engine, and with `y` of the inputs file where it fits.

    Raises:
        DeployError: bad input, a failed build, or code that does not come back.
        MissingExtraError: the extra `emulate` is not installed.
    """
    where = load_target(target)
    job = Job(model.graph, _options(model, where, name, optimize), where.core, compiler, where.board)
    if inputs is None:
        return verification.verify(
            job, where.name, random_samples(model.graph, RANDOM_SAMPLES, SEED), None, progress=progress
        )
    samples = fit_samples(model.graph, read_dataset(Path(inputs)), scale=scale, mean=mean)
    result = verification.verify(job, where.name, samples.inputs, samples.labels, progress=progress)
    return verification.with_notes(result, samples.warnings)


def profile(
    model: Model,
    targets: Sequence[str],
    *,
    name: str | None = None,
    optimize: str = "latency",
    compiler: str | None = None,
    progress: Progress = silent,
) -> Profile:
    """Builds and runs a model on each target.

    Raises:
        DeployError: an unknown target, a failed build, or code that does not come back.
        MissingExtraError: the extra `emulate` is not installed.
    """
    jobs = []
    for target in targets:
        found = load_target(target)
        job = Job(model.graph, _options(model, found, name, optimize), found.core, compiler, found.board)
        jobs.append((job, found))
    if not jobs:
        raise DeployError("no target was named", where="--target", hint="tinydeploy targets lists them")
    return profiling.profile(jobs, model.path, progress=progress)


def evaluate(
    model: Model, data: str | os.PathLike[str], *, scale: float = 1.0, mean: float = 0.0
) -> tuple[Evaluation, tuple[str, ...]]:
    """Accuracy or error of a model on labelled data, with warnings about the data.

    Raises:
        DeployError: the data does not fit the model.
    """
    samples = fit_samples(model.graph, read_dataset(Path(data)), scale=scale, mean=mean)
    return evaluation.evaluate(model.graph, samples, model=model.path), samples.warnings


def _options(model: Model, target: Target, name: str | None, optimize: str) -> ExportOptions:
    require_optimize(optimize)
    chosen = model.default_name if name is None else check_name(name)
    return ExportOptions(chosen, target.name, optimize, model.sha256)


def _first_sample(graph: Graph) -> tuple[Array, ...]:
    return tuple(x[:1] for x in random_samples(graph, 1, SEED))
