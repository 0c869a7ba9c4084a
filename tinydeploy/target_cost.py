"""What a network takes on a target, as one number: the measure behind a goal in flash, RAM or latency."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

from tinydeploy.data import random_samples
from tinydeploy.errors import DeployError
from tinydeploy.ir.graph import Graph
from tinydeploy.latency import milliseconds
from tinydeploy.measure import Job, Measurement, measure
from tinydeploy.prune.goal import PruneGoal
from tinydeploy.targets import Target

SEED = 0


@dataclass(frozen=True)
class TargetCost:
    """Bytes, milliseconds or cycles of int8 graphs on a target.

    Attributes:
        kind: flash, ram or latency.
        unit: B, ms or cycles.
        job: makes a graph ready for the target.
    """

    kind: str
    unit: str
    target: str
    job: Callable[[Graph], Job]

    def __call__(self, graph: Graph) -> float:
        """Exports, builds and runs an int8 graph with one seeded random sample.

        Raises:
            DeployError: the build failed, or the target gives no such figure.
            MissingExtraError: no compiler or emulator is installed.
        """
        inputs = tuple(x[:1] for x in random_samples(graph, 1, SEED))
        m = measure(self.job(graph), inputs, prove=False)
        found = self._figure(m)
        if found is None:
            raise DeployError(
                f"{self.kind} is not measured on {self.target}", where="--target", hint="name a core or board"
            )
        return float(found)

    def _figure(self, m: Measurement) -> float | None:
        if self.kind == "flash":
            return None if m.sizes is None else m.sizes.flash
        if self.kind == "ram":
            return m.ram_bytes
        return m.latency.cycles if self.unit == "cycles" else m.latency.latency_ms


@dataclass(frozen=True)
class Reached:
    """A goal in flash, RAM or latency, and the int8 network measured against it.

    Attributes:
        unit: B, ms or cycles, of all three figures.
        before: of the unpruned int8 network.
        after: of what is written.
    """

    kind: str
    unit: str
    allowed: float
    before: float
    after: float

    @property
    def missed(self) -> str | None:
        """Why the answer is no, or None."""
        if self.after <= self.allowed:
            return None
        return f"{self.kind}: {self.text(self.after)} taken and {self.text(self.allowed)} allowed"

    def text(self, amount: float) -> str:
        """`20.3 ms`, `65,536 B`."""
        return milliseconds(amount) if self.unit == "ms" else f"{math.floor(amount):,} {self.unit}"

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def target_cost(goal: PruneGoal, target: Target, job: Callable[[Graph], Job]) -> TargetCost | None:
    """The measure of a goal on a target; None for a goal that is not measured.

    Raises:
        DeployError: the target cannot tell: it is the host, its core has no model of cycles, or it has no
            clock and the goal is in milliseconds.
    """
    if not goal.is_measured:
        return None
    if target.core.architecture == "host":
        raise DeployError(
            f"{goal.kind} is not measured on the host", where="--target", hint="name a core or board"
        )
    if goal.kind != "latency":
        return TargetCost(goal.kind, "B", target.name, job)
    if target.core.timing is None:
        raise DeployError(
            f"there is no model of the cycles of {target.core.name}, and so no latency on {target.name}",
            where="--target",
            hint="name a board with another core, or give a goal in macs",
        )
    if target.board is not None:
        return TargetCost(goal.kind, "ms", target.name, job)
    if not goal.relative:
        raise DeployError(
            f"{target.name} is a core without a clock, and so without milliseconds",
            where="--target",
            hint="name a board (`tinydeploy targets` lists them), or give a share: --prune latency=50%",
        )
    return TargetCost(goal.kind, "cycles", target.name, job)
