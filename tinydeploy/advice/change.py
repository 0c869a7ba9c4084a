"""One change to a model or to how it is built, and what it was measured to do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from tinydeploy.backends.c.project import ExportOptions
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import Array
from tinydeploy.measure import Job, Measurement, measure
from tinydeploy.targets import Target
from tinydeploy.verdict import Limits, Resource, Verdict, amount_text, judge

Kind = Literal["optimize", "codebooks", "weights-in-ram", "prune", "none"]


@dataclass(frozen=True)
class Trial:
    """A model on a target that it does not fit, with the limits that it has to keep.

    Attributes:
        inputs: one array per graph input with one sample, for the runs.
    """

    job: Job
    target: Target
    limits: Limits
    inputs: tuple[Array, ...]

    def measure(self, *, options: ExportOptions | None = None, graph: Graph | None = None) -> Measurement:
        """Builds and runs the model with other options or with another graph of the same inputs."""
        job = replace(self.job, options=options or self.job.options, graph=graph or self.job.graph)
        return measure(job, self.inputs, prove=False)

    def judge(self, m: Measurement) -> Verdict:
        return judge(m, self.target, self.limits)


@dataclass(frozen=True)
class Width:
    """A prune group: its layers by their numbers in the profile, and its channels before and after."""

    layers: tuple[str, ...]
    before: int
    after: int

    def to_json(self) -> dict[str, object]:
        return {"layers": list(self.layers), "before": self.before, "after": self.after}


@dataclass(frozen=True)
class Advice:
    """A change that was tried.

    Attributes:
        fits: whether it makes the model fit, by a build and a run with it.
        text: what to do and what it does.
        command: how, or "" where no command does it.
        verdict: of the changed model; None for kind "none", where nothing was left to build.
        macs_left: fraction of the multiply-accumulates that stay.
        widths: of the groups that were pruned.
    """

    kind: Kind
    fits: bool
    text: str
    command: str = ""
    verdict: Verdict | None = None
    macs_left: float = 1.0
    widths: tuple[Width, ...] = ()

    def to_json(self) -> dict[str, object]:
        return {
            "kind": self.kind,
            "fits": self.fits,
            "text": self.text,
            "command": self.command,
            "needs": [] if self.verdict is None else [need.to_json() for need in self.verdict.needs],
            "macs_left": self.macs_left,
            "widths": [width.to_json() for width in self.widths],
        }


def effect_text(before: Verdict, after: Verdict) -> str:
    """``RAM 22,308 to 14,016 B, 2,368 B to spare`` for each resource that was over."""
    amounts = {need.resource: need for need in after.needs}
    return ", ".join(_effect(n.resource, n.amount, amounts[n.resource].amount, n.limit) for n in before.over)


def _effect(resource: Resource, before: float | None, after: float | None, limit: float) -> str:
    if before is None or after is None:
        return f"{resource} not known"
    spare = amount_text(resource, abs(limit - after))
    rest = f"{spare} to spare" if after <= limit else f"still {spare} over"
    unit = " ms" if resource == "latency" else " B"
    first = amount_text(resource, before).removesuffix(unit)
    return f"{resource} {first} to {amount_text(resource, after)}, {rest}"
