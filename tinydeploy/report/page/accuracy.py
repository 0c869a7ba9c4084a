"""Accuracy before and after, from the report.json that `compress` wrote beside its models."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tinydeploy.errors import DeployError

REPORT = "report.json"
_MOST_BYTES = 4 << 20
_MOST_STAGES = 16
_FIGURES = ("macs", "params", "weights_bytes", "arena_bytes")


@dataclass(frozen=True)
class StageFigures:
    """A network on its way through `compress`; `value` is of the report's metric, None where unknown."""

    name: str
    value: float | None
    macs: int
    params: int
    weights_bytes: int
    arena_bytes: int


@dataclass(frozen=True)
class Accuracy:
    """What a report of `compress` says.

    Attributes:
        metric: "accuracy" (fractions), "mse", or None where the data had no labels.
        stages: the float network first, the int8 network last.
    """

    metric: str | None
    stages: tuple[StageFigures, ...]


def find_accuracy(model: str, macs: int, params: int) -> tuple[Accuracy | None, str]:
    """The report beside a model file, where it is there and speaks of this model.

    Returns:
        The report or None, and a note where there is a file that is not used.
    """
    path = Path(model).parent / REPORT
    if not Path(model).is_file() or not path.is_file():
        return None, ""
    try:
        return read_accuracy(path, macs, params), ""
    except DeployError as error:
        return None, f"{error.where}: {error.fact}, so the page has no accuracy"


def read_accuracy(path: Path, macs: int, params: int) -> Accuracy:
    """Reads a report of `compress`.

    Args:
        macs, params: of the model that is profiled, which the report has to be of.

    Raises:
        DeployError: the file cannot be read, is no such report, or is one of another model.
    """
    hint = "give the report.json that `tinydeploy compress` wrote with this model"
    try:
        with path.open("rb") as stream:
            data = stream.read(_MOST_BYTES + 1)
    except OSError as error:
        raise DeployError(f"cannot be read ({error.strerror})", where=str(path), hint=hint) from None
    if len(data) > _MOST_BYTES:
        raise DeployError(f"is larger than {_MOST_BYTES:,} B", where=str(path), hint=hint)
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise DeployError("is no JSON", where=str(path), hint=hint) from None
    found = _accuracy(document, str(path))
    last = found.stages[-1]
    if (last.macs, last.params) != (macs, params):
        raise DeployError(
            f"is of another model: {last.macs:,} MACs and {last.params:,} parameters,"
            f" and this one has {macs:,} and {params:,}",
            where=str(path),
            hint=hint,
        )
    return found


def _accuracy(document: object, where: str) -> Accuracy:
    stages = document.get("stages") if isinstance(document, dict) else None
    if not isinstance(document, dict) or not isinstance(stages, list) or not 0 < len(stages) <= _MOST_STAGES:
        raise DeployError("is no report of compress: there are no stages", where=where)
    metric = document.get("metric")
    if metric not in ("accuracy", "mse", None):
        raise DeployError("is no report of compress: the metric is unknown", where=where)
    return Accuracy(metric, tuple(_stage(stage, f"{where}: stages[{i}]") for i, stage in enumerate(stages)))


def _stage(stage: object, where: str) -> StageFigures:
    if not isinstance(stage, dict) or not isinstance(stage.get("name"), str):
        raise DeployError("is no stage with a name", where=where)
    value = stage.get("value")
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise DeployError("the value is no number", where=where)
    if value is not None and not math.isfinite(value):
        raise DeployError("the value is not finite", where=where)
    return StageFigures(stage["name"][:40], value, *(_count(stage, key, where) for key in _FIGURES))


def _count(stage: Mapping[str, object], key: str, where: str) -> int:
    number = stage.get(key)
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise DeployError(f"{key} is no count", where=where)
    return number
