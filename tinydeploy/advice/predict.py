"""What a pruned graph needs, from its plan and its constants, without a build."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tinydeploy.advice.change import Trial
from tinydeploy.backends.c.layer import Layer
from tinydeploy.backends.c.model import Model
from tinydeploy.backends.c.project import lower_project
from tinydeploy.emulate.cycles.model import Cycles
from tinydeploy.errors import DeployError
from tinydeploy.ir.graph import Graph
from tinydeploy.measure import Measurement
from tinydeploy.verdict import Need, Resource, Verdict


@dataclass(frozen=True)
class Predictor:
    """Needs of graphs with the layers of a measured one and fewer channels.

    The arena comes from the plan and the weights from the constants, both exact but for padding; code and
    stack are taken to stay as they were measured, and a layer's cycles to shrink with its
    multiply-accumulates. A build shows how far that holds, and `extra` takes up what it showed.

    Attributes:
        before: the measurement of the whole graph, with `trial`'s setting.
        extra: to be added to each resource, in its unit.
    """

    trial: Trial
    before: Measurement
    extra: tuple[tuple[Resource, float], ...] = ()

    def needs(self, graph: Graph) -> tuple[Need, ...] | None:
        """The needs of a smaller graph; None where it cannot be exported."""
        try:
            model = lower_project(graph, self.trial.job.options)
        except DeployError:
            return None
        m = self.before
        assert m.sizes is not None and m.ram_bytes is not None
        weights = _weights(model) - _weights(m.project.model)
        arena = _static(model) - _static(m.project.model)
        amounts: dict[Resource, float | None] = {
            "flash": m.sizes.flash + weights,
            "RAM": m.ram_bytes + arena,
            "latency": self._latency(model),
        }
        extra = dict(self.extra)
        found = []
        for need in self.trial.judge(m).needs:
            amount = amounts[need.resource]
            more = extra.get(need.resource, 0.0)
            found.append(replace(need, amount=None if amount is None else amount + more))
        return tuple(found)

    def fits(self, graph: Graph) -> bool:
        """Whether a smaller graph keeps every limit, as far as can be told without a build."""
        needs = self.needs(graph)
        return needs is not None and not any(need.over > 0 for need in needs)

    def corrected(self, graph: Graph, built: Verdict) -> Predictor:
        """With what a build of a graph needed above what was predicted for it."""
        predicted = {need.resource: need.amount for need in self.needs(graph) or ()}
        extra = dict(self.extra)
        for need in built.needs:
            guess = predicted.get(need.resource)
            if need.amount is not None and guess is not None and need.amount > guess:
                extra[need.resource] = extra.get(need.resource, 0.0) + need.amount - guess
        return replace(self, extra=tuple(extra.items()))

    def _latency(self, model: Model) -> float | None:
        latency = self.before.latency
        if latency.latency_ms is None or latency.cycles is None:
            return None
        cycles = float(latency.cycles)
        now = {layer.node.name: layer for layer in model.layers}
        for layer in self.before.project.model.layers:
            spent = latency.per_function.get(layer.function, Cycles()).total
            cycles -= spent * (1.0 - _work(now[layer.node.name]) / max(_work(layer), 1))
        return latency.latency_ms * cycles / latency.cycles


def _work(layer: Layer) -> int:
    """Multiply-accumulates, or elements written where there are none."""
    return layer.macs or layer.output.elements


def _static(model: Model) -> int:
    return model.plan.arena_bytes + model.decoded_bytes


def _weights(model: Model) -> int:
    return sum(c.bytes for layer in model.layers for c in layer.code.constants)
