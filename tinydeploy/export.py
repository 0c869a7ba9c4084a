"""Writing a C project to disk, whole or not at all, and only where it keeps the user's limits."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tinydeploy.backends.c.coded import AUTO, PACKED
from tinydeploy.backends.c.project import Project
from tinydeploy.errors import DeployError
from tinydeploy.ir.types import Array
from tinydeploy.measure import Job, Measurement, measure
from tinydeploy.targets import Target


@dataclass(frozen=True)
class Export:
    """An exported C project.

    Attributes:
        folder: where it was written.
        measurement: sizes of the linked firmware where a limit made a build necessary, else None.
    """

    folder: Path
    project: Project
    target: Target
    measurement: Measurement | None


_SMALLER = {
    "latency": ("balanced", "ram", "flash"),
    "balanced": ("ram", "flash"),
    "ram": ("flash",),
    "flash": ("ram",),
}
"""The goals that are tried in turn where one exceeds a limit."""


class DoesNotFitError(Exception):
    """The answer is no: the model exceeds a limit that the user set. Nothing was written."""


def require_limits(m: Measurement, max_flash: int | None, max_ram: int | None) -> None:
    """Raises DoesNotFitError where the measured flash or RAM exceeds a limit in bytes."""
    flash = None if m.sizes is None else m.sizes.flash
    for what, limit, need in (("flash", max_flash, flash), ("RAM", max_ram, m.ram_bytes)):
        if limit is None:
            continue
        if need is None:
            raise DeployError(
                f"the {what} of this target is not measured",
                where=f"--max-{what.lower()}",
                hint="name a core or a board with --target",
            )
        if need > limit:
            raise DoesNotFitError(f"{what}: {need:,} B needed, {limit:,} B allowed, {need - limit:,} B over")


def measure_within(
    job: Job, sample: tuple[Array, ...], max_flash: int | None, max_ram: int | None
) -> Measurement:
    """The first measurement that keeps the limits, with ever smaller and slower kernels.

    With --codebooks auto, indices are coded first and then packed, which needs less RAM.

    Raises:
        DoesNotFitError: none does; the message is that of the goal which was asked for.
    """
    smaller = _SMALLER[job.options.optimize]
    refused: DoesNotFitError | None = None
    for kernels in (job.options.optimize, *smaller):
        for codebooks in (AUTO, PACKED) if job.options.codebooks == AUTO else (job.options.codebooks,):
            goal = "" if kernels == job.options.optimize else kernels
            options = replace(job.options, kernels=goal, codebooks=codebooks)
            measurement = measure(replace(job, options=options), sample, prove=False)
            try:
                require_limits(measurement, max_flash, max_ram)
            except DoesNotFitError as error:
                refused = refused or error
            else:
                return measurement
            if measurement.project.model.coding is None:
                break
    assert refused is not None
    raise refused


def write_project(project: Project, folder: Path) -> None:
    """Writes a project's files into `folder`; beside it first, so that a failure leaves no half of one.

    Raises:
        DeployError: the folder cannot be made or written.
    """
    write_files({name: text.encode("ascii") for name, text in project.files.items()}, folder)


def write_files(files: Mapping[str, bytes], folder: Path, *, obsolete: Iterable[str] = ()) -> None:
    """Writes all files into `folder`, or none.

    Args:
        obsolete: names of files there that an earlier run may have left and this one does not write.

    Raises:
        DeployError: the folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".tinydeploy-", dir=folder) as staging:
            for name, data in files.items():
                (Path(staging) / name).write_bytes(data)
            for name in files:
                (Path(staging) / name).replace(folder / name)
        for name in set(obsolete) - set(files):
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise DeployError(
            f"cannot be written ({error.strerror})", where=str(folder), hint="name a folder with -o"
        ) from None
