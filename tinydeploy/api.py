"""The Python API: each stage of the way from a model to a microcontroller as a plain function."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tinydeploy import (
    calibration,
    evaluation,
    firmware_profile,
    profiling,
    verification,
)
from tinydeploy.analysis import Analysis
from tinydeploy.analyzing import analyze
from tinydeploy.backends.c.project import make_project
from tinydeploy.calibration import Fit, Reading
from tinydeploy.comparison import diff
from tinydeploy.compressing import compress
from tinydeploy.compression import Compression
from tinydeploy.data import DataSource, fit_samples, open_dataset, random_samples
from tinydeploy.difference import Difference
from tinydeploy.emulate.toolchain import missing_toolchain
from tinydeploy.errors import DeployError
from tinydeploy.estimate.model import estimate as estimated
from tinydeploy.evaluation import Evaluation
from tinydeploy.export import DoesNotFitError, Export, measure_within, write_files, write_project
from tinydeploy.firmware_profile import FirmwareCall, FirmwareProfile
from tinydeploy.jobs import first_sample, make_job
from tinydeploy.measure import Progress, measure, silent
from tinydeploy.model import Model, from_torch, load_model
from tinydeploy.profiling import Profile
from tinydeploy.targets import load_target
from tinydeploy.verdict import Limits
from tinydeploy.verification import Verification

__all__ = [
    "Analysis",
    "Compression",
    "DeployError",
    "Difference",
    "DoesNotFitError",
    "Evaluation",
    "Export",
    "FirmwareCall",
    "FirmwareProfile",
    "Fit",
    "Model",
    "Profile",
    "Verification",
    "analyze",
    "calibrate",
    "compress",
    "diff",
    "evaluate",
    "export_c",
    "from_torch",
    "load_model",
    "profile",
    "profile_firmware",
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
    autotune: bool = False,
    codebooks: str = "packed",
    progress: Progress = silent,
) -> Export:
    """Writes a C project into `folder`, all files or none.

    Args:
        autotune: choose kernels by what each took on the emulated core, not by stored costs.
        codebooks: how flash holds codebook indices: "packed"; "huffman", which are decoded into RAM at
            start-up; or "auto", the latter where it saves flash and the RAM is there.
        max_flash, max_ram: bytes; with one of them the project is built and measured first, and where it
            exceeds one, again with kernels that are smaller and slower.

    Raises:
        DeployError: the model cannot be exported, or the folder cannot be written.
        DoesNotFitError: a limit is exceeded.
    """
    where = load_target(target)
    job = make_job(
        model,
        where,
        name,
        optimize,
        autotune=autotune,
        codebooks=codebooks,
        max_ram=max_ram,
        progress=progress,
    )
    measurement = None
    if max_flash is None and max_ram is None:
        project = make_project(model.graph, job.options)
    else:
        measurement = measure_within(job, first_sample(model.graph), max_flash, max_ram)
        project = measurement.project
    write_project(project, Path(folder))
    return Export(Path(folder), project, where, measurement)


def verify(
    model: Model,
    target: str,
    *,
    inputs: DataSource | None = None,
    name: str | None = None,
    optimize: str = "latency",
    compiler: str | None = None,
    scale: float = 1.0,
    mean: float = 0.0,
    autotune: bool = False,
    codebooks: str = "packed",
    progress: Progress = silent,
) -> Verification:
    """Compares the emulated core with the engine, and with `y` of the inputs file where it fits.

    Raises:
        DeployError: bad input, a failed build, or code that does not come back.
        MissingExtraError: the extra `emulate` is not installed.
    """
    where = load_target(target)
    job = make_job(
        model, where, name, optimize, compiler, autotune=autotune, codebooks=codebooks, progress=progress
    )
    if inputs is None:
        return verification.verify(
            job, where.name, random_samples(model.graph, RANDOM_SAMPLES, SEED), None, progress=progress
        )
    samples = fit_samples(model.graph, open_dataset(inputs), scale=scale, mean=mean)
    result = verification.verify(job, where.name, samples.inputs, samples.labels, progress=progress)
    return verification.with_notes(result, samples.warnings)


def profile(
    model: Model,
    targets: Sequence[str],
    *,
    name: str | None = None,
    optimize: str = "latency",
    compiler: str | None = None,
    max_flash: int | None = None,
    max_ram: int | None = None,
    max_latency_ms: float | None = None,
    estimate: bool = False,
    autotune: bool = False,
    codebooks: str = "packed",
    progress: Progress = silent,
) -> Profile:
    """Builds and runs a model on each target, and looks for what would make it fit where it does not.

    Args:
        max_flash, max_ram, max_latency_ms: bytes and milliseconds that are allowed on every target, on top
            of what its board has.
        estimate: take cost functions of the kernels in place of compiler and emulator. They are taken anyway
            where no compiler is found and none was asked for, and a note then says so; not with `autotune`.

    Raises:
        DeployError: an unknown target, a failed build, code that does not come back, or a model, core or
            board without cost functions.
        MissingExtraError: the extra `emulate` is not installed, and no estimate can stand in.
    """
    found = [load_target(target) for target in targets]
    if estimate and autotune:
        raise DeployError("measures, and --estimate does not", where="--autotune", hint="leave one out")
    jobs = [
        (
            make_job(
                model,
                t,
                name,
                optimize,
                compiler,
                autotune=autotune,
                codebooks=codebooks,
                max_ram=max_ram,
                progress=progress,
            ),
            t,
        )
        for t in found
    ]
    if not jobs:
        raise DeployError("no target was named", where="--target", hint="tinydeploy targets lists them")
    limits = Limits(max_flash, max_ram, max_latency_ms)
    if estimate:
        return profiling.profile(jobs, model.path, limits, run=estimated, progress=progress)
    missing = None if compiler is not None else missing_toolchain([job.core for job, _ in jobs])
    if missing is None:
        return profiling.profile(jobs, model.path, limits, progress=progress)
    try:
        result = profiling.profile(jobs, model.path, limits, run=estimated, progress=progress)
    except DeployError:
        raise missing from None
    note = f"no compiler was found, so this is an estimate; {missing.hint} for figures of the code itself"
    return replace(result, notes=(note,))


def calibrate(
    board: str,
    measured: Sequence[tuple[str, float]],
    output: str | os.PathLike[str],
    *,
    optimize: str = "latency",
    compiler: str | None = None,
    progress: Progress = silent,
) -> Fit:
    """Fits the model of a board's cycles to measured latencies and writes a board file; all of it or nothing.

    Args:
        measured: model files and the milliseconds that one call of ``NAME_run`` took on the user's board.
        output: the file; its name is the board's.

    Raises:
        DeployError: the target is no board or has no model of cycles, the readings fit no factor, the file
            cannot be written.
        MissingExtraError: the extra `emulate` is not installed.
    """
    where, name = load_target(board), calibration.file_name(Path(output))
    if where.board is None:
        raise DeployError(f"{where.name} is a core, which has no clock", where="BOARD", hint="name a board")
    plain = replace(where, board=replace(where.board, calibration=None))
    readings = []
    for path, milliseconds in measured:
        model = load_model(path)
        job = make_job(model, plain, None, optimize, compiler)
        m = measure(job, first_sample(model.graph), prove=False, progress=progress)
        if m.latency.parts is None:
            raise DeployError("; ".join(m.latency.notes), where=where.name)
        readings.append(Reading(Path(path).name, milliseconds, m.latency.parts))
    fit = calibration.fit_readings(readings, where.board.clock_mhz)
    text = calibration.board_toml(calibration.calibrated(where.board, fit, name))
    write_files({Path(output).name: text.encode()}, Path(output).parent)
    return fit


def profile_firmware(
    path: str | os.PathLike[str],
    targets: Sequence[str],
    call: FirmwareCall,
    *,
    progress: Progress = silent,
) -> FirmwareProfile:
    """What one call of a function costs in a linked Arm ELF file, for the core of each target.

    Raises:
        DeployError: the file, a symbol, an argument or an input is wrong, or the code cannot be run.
        MissingExtraError: the extra `emulate` is not installed.
    """
    found = [load_target(target) for target in targets]
    if not found:
        raise DeployError("no target was named", where="--target", hint="tinydeploy targets lists them")
    return firmware_profile.profile_firmware(Path(path), found, call, progress=progress)


def evaluate(
    model: Model, data: DataSource, *, scale: float = 1.0, mean: float = 0.0
) -> tuple[Evaluation, tuple[str, ...]]:
    """Accuracy or error of a model on labelled data, with warnings about the data.

    Raises:
        DeployError: the data does not fit the model.
    """
    samples = fit_samples(model.graph, open_dataset(data), scale=scale, mean=mean)
    return evaluation.evaluate(model.graph, samples, model=model.path), samples.warnings
