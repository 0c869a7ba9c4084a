"""What the gradients of a float network say about the bits of each of its layers, together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tinydeploy.errors import DeployError
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import Array
from tinydeploy.precision.allocate import Allocation, least_bits, offsets
from tinydeploy.precision.gains import Gain, noise_gains
from tinydeploy.precision.hessian import hessian_traces

SAMPLES = 32
"""Of the data, for gradients: each takes a pass a class."""

_WEIGHTS, _ACTIVATIONS = "weights", "activations"


@dataclass(frozen=True)
class LayerPrecision:
    """One layer with weights.

    Attributes:
        gain: its noise gains.
        weights_offset, activations_offset: bits beyond those of the tensor with the least gain.
        trace: mean trace of the loss's Hessian for its weights; None without labels.
    """

    gain: Gain
    weights_offset: int
    activations_offset: int
    trace: float | None

    def to_json(self) -> dict[str, object]:
        return {
            "name": self.gain.name,
            "weights_gain": self.gain.weights,
            "activations_gain": self.gain.activations,
            "weights_offset": self.weights_offset,
            "activations_offset": self.activations_offset,
            "hessian_trace": self.trace,
        }


@dataclass(frozen=True)
class PrecisionChoice:
    """Of all layers.

    Attributes:
        loss: accuracy that may be lost, a fraction.
        uniform: the least bits that are the same everywhere and lose no more, by the bound.
        mixed: the least base with an offset a tensor that loses no more, by the same bound.
        samples: that gave gradients.
    """

    layers: tuple[LayerPrecision, ...]
    loss: float
    uniform: Allocation | None
    mixed: Allocation | None
    samples: int

    def bits(self, name: str, kind: str) -> int | None:
        """Of a layer's `weights` or `activations` in the mixture."""
        if self.mixed is None:
            return None
        gain = next(layer.gain for layer in self.layers if layer.gain.name == name)
        return self.mixed.bits[_key(gain, kind)]

    def to_json(self) -> dict[str, object]:
        layers = []
        for layer in self.layers:
            entry = layer.to_json()
            for kind in (_WEIGHTS, _ACTIVATIONS):
                entry[f"{kind}_bits"] = self.bits(layer.gain.name, kind)
            layers.append(entry)
        return {
            "accuracy_loss": self.loss,
            "samples": self.samples,
            "uniform_bits": None if self.uniform is None else self.uniform.base,
            "base_bits": None if self.mixed is None else self.mixed.base,
            "layers": layers,
        }


def choose(graph: Graph, inputs: Sequence[Array], labels: Array | None, loss: float) -> PrecisionChoice:
    """Noise gains, offsets and the bits that they come to; traces where there are labels.

    Args:
        graph: float.
        inputs: one float32 array (samples, *value.shape) per graph input; the first SAMPLES are taken.
        labels: of the same samples, as `finetune` takes them, or None.
        loss: a fraction.

    Raises:
        DeployError: the network decides nothing, or data do not fit.
        MissingExtraError: PyTorch is not installed.
    """
    few = [x[:SAMPLES] for x in inputs]
    gains = noise_gains(graph, few)
    by_tensor = _by_tensor(gains)
    found = offsets(by_tensor)
    traces: Mapping[str, float] = {}
    if labels is not None and len(inputs) == 1:
        traces = hessian_traces(graph, few[0], labels[:SAMPLES])
    layers = tuple(
        LayerPrecision(g, found[_key(g, _WEIGHTS)], found[_key(g, _ACTIVATIONS)], traces.get(g.name))
        for g in gains
    )
    uniform, mixed = (least_bits(by_tensor, loss, per_tensor=p) for p in (False, True))
    return PrecisionChoice(layers, loss, uniform, mixed, len(few[0]))


def _by_tensor(gains: Sequence[Gain]) -> dict[str, float]:
    """A tensor that several layers read is one, and adds to the bound once."""
    return {_key(g, kind): getattr(g, kind) for g in gains for kind in (_WEIGHTS, _ACTIVATIONS)}


def _key(gain: Gain, kind: str) -> str:
    return f"{kind}:{gain.name if kind == _WEIGHTS else gain.reads}"


def choose_or_say(
    graph: Graph, inputs: Sequence[Array], labels: Array | None, loss: float
) -> tuple[PrecisionChoice | None, tuple[str, ...]]:
    """Like `choose`; where that is not possible, None and a note that says why."""
    try:
        return choose(graph, inputs, labels, loss), ()
    except DeployError as error:
        return None, (f"no bits by layer: {error}",)
