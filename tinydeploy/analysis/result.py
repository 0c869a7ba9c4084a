"""What `analyze` finds, as data."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tinydeploy.analysis.costs import Costs, computational_cost, network_costs, representational_cost
from tinydeploy.analysis.layers import LinearLayer
from tinydeploy.precision.choice import PrecisionChoice


@dataclass(frozen=True)
class LayerAnalysis:
    """One layer with weights.

    Attributes:
        accumulator_bits: in which no sum can overflow, whatever the operands.
        proved_bits: in which none can for the weights as they are; None for a float model
            without data, whose scales are not known.
        zeta_x_db, zeta_w_db: peak over rms of its operands; None where it was not measured.
        full_range_db: SQNR of its output at as many bits as its input, over all that its operands could
            make of it; None where they were not measured.
    """

    layer: LinearLayer
    accumulator_bits: int
    proved_bits: int | None
    zeta_x_db: float | None = None
    zeta_w_db: float | None = None
    full_range_db: float | None = None

    def to_json(self) -> dict[str, object]:
        layer = self.layer
        return {
            "name": layer.node.name,
            "op": layer.node.op.kind,
            "dot_length": layer.length,
            "dots": layer.dots,
            "weights": layer.weights,
            "inputs": layer.inputs,
            "weight_bits": layer.weight_bits,
            "activation_bits": layer.input_bits,
            "accumulator_bits": self.accumulator_bits,
            "accumulator_bits_proved": self.proved_bits,
            "representational_cost_bits": representational_cost(layer),
            "computational_cost_fa": computational_cost(layer),
            "zeta_x_db": finite(self.zeta_x_db),
            "zeta_w_db": finite(self.zeta_w_db),
            "full_range_sqnr_db": finite(self.full_range_db),
        }


@dataclass(frozen=True)
class TensorAnalysis:
    """One tensor, float against quantized. What was not measured or cannot be said is None.

    Attributes:
        kind: `weights` or `activation`.
        zeta_db: peak over rms.
        sqnr_db: measured, with all that the layers before add.
        predicted_db: the same by formula, from steps and powers.
        rounding_db: by formula, of its own rounding alone.
        kl_forward, kl_reverse: KL(float || quantized) and KL(quantized || float) over the points of its
            grid, in nats.
    """

    name: str
    kind: str
    bits: int
    elements: int
    zeta_db: float | None = None
    sqnr_db: float | None = None
    predicted_db: float | None = None
    rounding_db: float | None = None
    kl_forward: float | None = None
    kl_reverse: float | None = None

    def to_json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "kind": self.kind,
            "bits": self.bits,
            "elements": self.elements,
            "zeta_db": finite(self.zeta_db),
            "sqnr_db": finite(self.sqnr_db),
            "predicted_sqnr_db": finite(self.predicted_db),
            "rounding_sqnr_db": finite(self.rounding_db),
            "kl_forward": finite(self.kl_forward),
            "kl_reverse": finite(self.kl_reverse),
        }


@dataclass(frozen=True)
class Analysis:
    """Bits, noise and costs of a network.

    Attributes:
        samples: that were measured on; 0 without data.
        precision: bits by layer, chosen from gradients of a float network; None where that is not possible.
        notes: what could not be said, and why.
    """

    model: str
    samples: int
    layers: tuple[LayerAnalysis, ...]
    tensors: tuple[TensorAnalysis, ...]
    notes: tuple[str, ...] = ()
    precision: PrecisionChoice | None = None

    @property
    def costs(self) -> Costs:
        return network_costs([a.layer for a in self.layers])

    def to_json(self) -> dict[str, object]:
        costs = self.costs
        return {
            "model": self.model,
            "samples": self.samples,
            "weights": costs.weights,
            "average_weight_bits": costs.average_weight_bits,
            "representational_cost_bits": costs.representational,
            "computational_cost_fa": costs.computational,
            "layers": [a.to_json() for a in self.layers],
            "tensors": [t.to_json() for t in self.tensors],
            "precision": None if self.precision is None else self.precision.to_json(),
            "notes": list(self.notes),
        }


def finite(value: float | None) -> float | None:
    """JSON has no infinity."""
    return None if value is None or not math.isfinite(value) else value
