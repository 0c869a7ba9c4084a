"""Candidates for bits by tensor: the same everywhere, by noise gains, by what each tensor's noise costs."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tinydeploy.precision.allocate import allocate, offsets
from tinydeploy.precision.measures import (
    BITS,
    LEAST,
    MOST,
    Measures,
    Noise,
    Wanted,
    activations_key,
    weights_key,
)
from tinydeploy.quantize.recipe import LayerRule, Recipe, Treatment
from tinydeploy.quantize.scales import Activations
from tinydeploy.quantize.schemes import Linear

_KEPT = 6
"""Mixtures of a path that are tried, from all bits to the fewest."""


@dataclass(frozen=True)
class Mixture:
    """Linear weights of so many bits by layer, and activations by tensor.

    Attributes:
        source: what chose it.
        bits: of weights, by layer.
        activations: by tensor; those that are not named have eight.
    """

    source: str
    bits: Mapping[str, int]
    activations: Mapping[str, int] = field(default_factory=dict)

    @property
    def recipe(self) -> Recipe:
        rules = tuple(LayerRule(glob.escape(n), Treatment(Linear(b))) for n, b in self.bits.items())
        tensors = {name: Activations(b) for name, b in self.activations.items() if b != MOST}
        return Recipe(rules, where="--bits auto", tensors=tensors)

    def mean_bits(self, sizes: Mapping[str, int]) -> float:
        """Of a weight."""
        return sum(self.bits[n] * sizes[n] for n in sizes) / max(sum(sizes.values()), 1)


def candidates(m: Measures) -> tuple[Mixture, ...]:
    """Every mixture worth measuring; none twice."""
    found: list[tuple[str, Mapping[str, int]]] = [
        ("uniform", dict.fromkeys(m.sizes, b)) for b in reversed(BITS)
    ]
    if m.wanted == Wanted(None, None):
        # Weights cost accuracy less than activations do, as a rule: uniform ones of those alone as well.
        weights = {weights_key(name) for name in m.layers}
        found += [("uniform", {k: b if k in weights else MOST for k in m.sizes}) for b in reversed(BITS[:-1])]
    for base in range(MOST, LEAST - max(offsets(m.gains).values(), default=0) - 1, -1):
        found.append(("noise gain", dict(allocate(m.gains, base, least=LEAST, most=MOST).bits)))
    for source, noise in m.noise.items():
        found += [(source, bits) for bits in spread(path(noise, m.sizes), m.sizes)]
    distinct: dict[tuple[int, ...], Mixture] = {}
    for source, bits in found:
        distinct.setdefault(tuple(bits[k] for k in m.sizes), _mixture(m, source, bits))
    return tuple(distinct.values())


def _mixture(m: Measures, source: str, bits: Mapping[str, int]) -> Mixture:
    """Bits by key, and what is not searched as it is wanted."""
    of_weights, of_activations = m.wanted.weights or MOST, m.wanted.activations or MOST
    return Mixture(
        source,
        {name: bits.get(weights_key(name), of_weights) for name in m.layers},
        {t: bits.get(activations_key(s.name), of_activations) for s in m.shared for t in s.tensors},
    )


def path(noise: Noise, sizes: Mapping[str, int]) -> list[dict[str, int]]:
    """From all tensors at eight bits to all at two: each step takes a bit where a saved bit costs least."""
    bits = dict.fromkeys(sizes, MOST)
    steps = [dict(bits)]
    while any(b > LEAST for b in bits.values()):

        def cost(name: str) -> float:
            place = bits[name] - LEAST
            return (noise[name][place - 1] - noise[name][place]) / sizes[name]

        cheapest = min((n for n in bits if bits[n] > LEAST), key=cost)
        bits[cheapest] -= 1
        steps.append(dict(bits))
    return steps


def spread(steps: Sequence[Mapping[str, int]], sizes: Mapping[str, int]) -> list[Mapping[str, int]]:
    """Some of a path, about as far from each other in bits."""
    means = np.array([sum(step[n] * sizes[n] for n in sizes) for step in steps]) / max(sum(sizes.values()), 1)
    wanted = np.linspace(means[0], means[-1], _KEPT + 2)[1:-1]
    return [steps[int(np.abs(means - w).argmin())] for w in wanted]
