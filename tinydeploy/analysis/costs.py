"""What a precision costs, in bits to hold and in full adders to compute; pure functions of numbers.

Source of both costs: C. Sakr, Y. Kim, N. Shanbhag, "Analytical Guarantees on Numerical Precision of Deep
Neural Networks" (ICML 2017), and C. Sakr, N. Shanbhag, "An Analytical Method to Determine Minimum Per-Layer
Precision of Deep Neural Networks" (ICASSP 2018).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tinydeploy.analysis.layers import LinearLayer


def representational_cost(layer: LinearLayer) -> int:
    """`R_W B_W + R_A B_A`: bits of the weights and of the activation that the layer reads."""
    return layer.weights * layer.weight_bits + layer.inputs * layer.input_bits


def computational_cost(layer: LinearLayer) -> int:
    """One-bit full adders of all its dot products, `N (D B_A B_W + (D - 1)(B_A + B_W + ceil(log2 D)))`.

    N dot products of D products each: an array multiplier takes `B_A B_W` full adders, and each of the D - 1
    additions as many as the accumulator has bits. The sources print `log2 D - 1` in the last term; their
    totals come out with `ceil(log2 D)`.
    """
    a, w, length = layer.input_bits, layer.weight_bits, layer.length
    return layer.dots * (length * a * w + (length - 1) * accumulator_bits(a, w, length))


def accumulator_bits(input_bits: int, weight_bits: int, length: int) -> int:
    """`B_A + B_W + ceil(log2 D)`: bits in which no sum of D products can overflow, whatever the operands."""
    return input_bits + weight_bits + (length - 1).bit_length()


def signed_bits(bound: int) -> int:
    """Bits of the least two's complement integer that holds every number in [-bound, bound]."""
    return bound.bit_length() + 1


@dataclass(frozen=True)
class Costs:
    """Of a whole network.

    Attributes:
        weights: how many there are, biases left out.
        average_weight_bits: of one; 0 where there are none.
        representational: bits of all weights and of the activation that each layer reads.
        computational: full adders.
    """

    weights: int
    average_weight_bits: float
    representational: int
    computational: int


def network_costs(layers: Sequence[LinearLayer]) -> Costs:
    """The sums over the layers with weights."""
    weights = sum(layer.weights for layer in layers)
    bits = sum(layer.weights * layer.weight_bits for layer in layers)
    return Costs(
        weights,
        bits / weights if weights else 0.0,
        sum(map(representational_cost, layers)),
        sum(map(computational_cost, layers)),
    )
