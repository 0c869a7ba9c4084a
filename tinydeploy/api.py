"""The Python API: each stage of the way from a model to a microcontroller as a plain function."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from tinydeploy import compression, evaluation, profiling, verification
from tinydeploy.backends.c.project import ExportOptions, make_project
from tinydeploy.backends.c.syntax import check_name
from tinydeploy.backends.onnx import write_onnx
from tinydeploy.backends.tflite import write_tflite
from tinydeploy.compression import Compression, CompressOptions, Inputs
from tinydeploy.data import fit_samples, random_samples, read_dataset
from tinydeploy.errors import DeployError
from tinydeploy.evaluation import Evaluation
from tinydeploy.export import DoesNotFitError, Export, measure_within, write_files, write_project
from tinydeploy.finetune import TrainOptions
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import Array
from tinydeploy.measure import Job, Progress, measure, require_optimize, silent
from tinydeploy.model import Model, load_model
from tinydeploy.profiling import Profile
from tinydeploy.prune.goal import PruneGoal, parse_goal
from tinydeploy.prune.select import SelectOptions
from tinydeploy.pruning import PruneOptions
from tinydeploy.targets import Target, load_target
from tinydeploy.verification import Verification

__all__ = [
    "Compression",
    "DoesNotFitError",
    "Evaluation",
    "Export",
    "Model",
    "Profile",
    "Verification",
    "compress",
    "evaluate",
    "export_c",
    "load_model",
    "profile",
    "verify",
]

RANDOM_SAMPLES = 6
"""Seeded random samples of a verification without data; one all low and one all high come on top."""

SEED = 0


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
        max_flash, max_ram: bytes; with one of them the project is built and measured first, and where it
            exceeds one, again with kernels that are smaller and slower.

    Raises:
        DeployError: the model cannot be exported, or the folder cannot be written.
        DoesNotFitError: a limit is exceeded.
    """
    where = load_target(target)
    options = _options(model, where, name, optimize)
    measurement = None
    if max_flash is None and max_ram is None:
        project = make_project(model.graph, options)
    else:
        measurement = measure_within(
            Job(model.graph, options, where.core), _first_sample(model.graph), max_flash, max_ram
        )
        project = measurement.project
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


def compress(
    model: Model,
    data: str | os.PathLike[str],
    *,
    output: str | os.PathLike[str] | None = None,
    eval_data: str | os.PathLike[str] | None = None,
    prune: str | None = None,
    prune_divisor: int = 4,
    prune_steps: int = 1,
    importance: str = "l2",
    protect: Sequence[str] = (),
    calibration: str = "minmax",
    calibration_samples: int = 500,
    finetune_epochs: int = 0,
    qat_epochs: int = 0,
    learning_rate: float = 3e-3,
    batch_size: int = 64,
    loss: str = "auto",
    augment: str | None = None,
    distill: bool = False,
    checkpoint: str | None = None,
    seed: int = 0,
    max_accuracy_drop: float | None = None,
    force: bool = False,
    target: str = "cortex-m4",
    input_scale: float = 1.0,
    input_mean: float = 0.0,
    progress: Progress = silent,
) -> tuple[Compression, tuple[str, ...]]:
    """Prunes, trains and quantizes a float model; writes model.onnx, model.tflite and report.json.

    Args:
        data: .npz with x and y for calibration and training; `eval_data` for the accuracies.
        output: folder; None writes nothing. Nothing is written either where the accuracy is missed,
            unless `force`.

    Returns:
        The result, and warnings about the data.

    Raises:
        DeployError: the model is quantized already, the data does not fit, a goal cannot be reached.
        MissingExtraError: training is asked for without the extra `train`.
    """
    where = load_target(target)
    goal = parse_goal(prune)
    training = fit_samples(model.graph, read_dataset(Path(data)), scale=input_scale, mean=input_mean)
    held = training
    if eval_data is not None:
        held = fit_samples(model.graph, read_dataset(Path(eval_data)), scale=input_scale, mean=input_mean)
    options = CompressOptions(
        goal=goal,
        prune=PruneOptions(importance, SelectOptions(prune_divisor), tuple(protect), prune_steps, seed=seed),
        calibration=calibration,
        calibration_samples=calibration_samples,
        finetune_epochs=finetune_epochs,
        qat_epochs=qat_epochs,
        train=TrainOptions(
            learning_rate=learning_rate,
            batch_size=batch_size,
            seed=seed,
            loss=loss,
            augment=augment,
            checkpoint=None if checkpoint is None else Path(checkpoint),
        ),
        distill=distill,
        max_accuracy_drop=max_accuracy_drop,
    )
    fits = _fit_test(model, where, goal) if goal.kind in ("flash", "ram") else None
    given = Inputs(model.graph, training, held, model.path, where.name, fits)
    result = compression.compress(given, options, progress=progress)
    if output is not None and (result.missed is None or force):
        result = replace(result, forced=force)
        write_files(_compressed_files(result), Path(output))
    return result, (*training.warnings, *(held.warnings if eval_data is not None else ()))


def _compressed_files(result: Compression) -> dict[str, bytes]:
    return {
        "model.onnx": write_onnx(result.graph),
        "model.tflite": write_tflite(result.graph),
        "report.json": (json.dumps(result.to_json(), indent=2) + "\n").encode(),
    }


def _fit_test(model: Model, target: Target, goal: PruneGoal) -> Callable[[Graph], bool]:
    """Whether an int8 graph, built and run on the target, keeps a limit in flash or RAM."""

    def fits(graph: Graph) -> bool:
        job = Job(graph, _options(model, target, None, "balanced"), target.core)
        m = measure(job, _first_sample(graph), prove=False)
        need = m.ram_bytes if goal.kind == "ram" else None if m.sizes is None else m.sizes.flash
        if need is None:
            raise DeployError(f"{goal.kind} is not measured on {target.name}", where="--target")
        return need <= goal.amount

    return fits


def _options(model: Model, target: Target, name: str | None, optimize: str) -> ExportOptions:
    require_optimize(optimize)
    chosen = model.default_name if name is None else check_name(name)
    return ExportOptions(chosen, target.name, optimize, model.sha256, target.core.dsp)


def _first_sample(graph: Graph) -> tuple[Array, ...]:
    return tuple(x[:1] for x in random_samples(graph, 1, SEED))
