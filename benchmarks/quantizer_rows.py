"""The rows of `benchmarks/quantizer_table.py`: which quantizer on which layers, and how it is trained."""

from __future__ import annotations

import glob
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import Array
from tinydeploy.precision.allocate import allocate
from tinydeploy.precision.gains import noise_gains
from tinydeploy.precision.mixtures import BITS, path
from tinydeploy.precision.sensitivity import layer_sensitivity
from tinydeploy.quantize.qat import QatOptions
from tinydeploy.quantize.qat_options import WeightSteps
from tinydeploy.quantize.recipe import LayerRule, Recipe, Treatment, linear_nodes
from tinydeploy.quantize.scales import Activations
from tinydeploy.quantize.schemes import (
    AbcNet,
    Binary,
    KMeans,
    Linear,
    MinMaxRange,
    Scheme,
    TrainedTernary,
)

WEIGHTS_ONLY = QatOptions(weights_only=True)
LEARNED_STEPS = QatOptions(weights="lsq", weights_only=True)
_RATES = {2: 2e-3, 4: 3e-3}
"""Learning rate by epochs."""
_EPOCHS = {2: 4}
"""By bits of a weight; two where nothing else is said."""
GAIN_SAMPLES = 32
"""Images that give noise gains: a backward pass an image and class."""


@dataclass(frozen=True)
class Row:
    """One quantizer.

    Attributes:
        recipe: made from the float graph and calibration images.
        before: whether the network is measured without training too.
        epochs: of training; more where fewer bits leave more to win back.
        rate: the learning rate; None for that of so many epochs.
    """

    title: str
    recipe: Callable[[Graph, Array], Recipe]
    training: QatOptions = WEIGHTS_ONLY
    before: bool = False
    epochs: int = 2
    rate: float | None = None

    @property
    def learning_rate(self) -> float:
        return _RATES[self.epochs] if self.rate is None else self.rate


def inner_layers(graph: Graph) -> list[tuple[str, int, int]]:
    """Name, stage from 0 and number of weights of each layer but the first and the last.

    A stage is the layers with so many outputs.
    """
    nodes = linear_nodes(graph)[1:-1]
    weights = {n.name: graph.value(str(n.inputs[1])) for n in nodes}
    widths = sorted({w.shape[0] for w in weights.values()})
    return [(name, widths.index(w.shape[0]), w.elements) for name, w in weights.items()]


def each_layer(choose: Callable[[str, int], Treatment]) -> Callable[[Graph, Array], Recipe]:
    """A treatment by name and stage; first and last layer, and what additions read, have eight bits."""

    def make(graph: Graph, images: Array) -> Recipe:
        del images
        found = inner_layers(graph)
        return Recipe(tuple(LayerRule(glob.escape(n), choose(n, stage)) for n, stage, _ in found))

    return make


def everywhere(
    scheme: Scheme, activations: Activations | None = None, *, signs: bool = False
) -> Callable[[Graph, Array], Recipe]:
    return each_layer(lambda name, stage: Treatment(scheme, activations or Activations(), signs))


def by_stage(bits: tuple[int, int, int]) -> Callable[[Graph, Array], Recipe]:
    return each_layer(lambda name, stage: Treatment(MinMaxRange(bits[stage])))


def noise_gain(uniform: int) -> Callable[[Graph, Array], Recipe]:
    """Bits by noise gain, as many as fit into the weight bits of `uniform` everywhere."""

    def make(graph: Graph, images: Array) -> Recipe:
        sizes = {name: count for name, _, count in inner_layers(graph)}
        gains = {g.name: g.weights for g in noise_gains(graph, [images[:GAIN_SAMPLES]]) if g.name in sizes}
        allowed = uniform * sum(sizes.values())
        best = dict.fromkeys(sizes, 2)
        for base in range(-8, 9):
            bits = dict(allocate(gains, base, least=2, most=8).bits)
            if sum(bits[n] * sizes[n] for n in sizes) <= allowed:
                best = bits
        # A base is a whole bit of all; what is left goes to the layers that add most to the bound.
        for name in sorted(sizes, key=lambda n: gains[n] * 4.0 ** -best[n], reverse=True):
            if best[name] < 8 and sum(best[n] * sizes[n] for n in sizes) + sizes[name] <= allowed:
                best[name] += 1
        return _per_layer(best)

    return make


def sensitivity(uniform: int) -> Callable[[Graph, Array], Recipe]:
    """Bits by what each layer's noise does to the output, within the weight bits of `uniform` everywhere."""

    def make(graph: Graph, images: Array) -> Recipe:
        sizes = {name: count for name, _, count in inner_layers(graph)}
        found = layer_sensitivity(graph, [images[:GAIN_SAMPLES]], BITS)
        noise = {name: [10.0 ** (-decibel / 10.0) for decibel in found[name]] for name in sizes}
        allowed = uniform * sum(sizes.values())
        steps = path(noise, sizes)
        return _per_layer(next(s for s in steps if sum(s[n] * sizes[n] for n in sizes) <= allowed))

    return make


def _per_layer(bits: Mapping[str, int]) -> Recipe:
    return Recipe(tuple(LayerRule(glob.escape(n), Treatment(Linear(b))) for n, b in bits.items()))


def rows() -> dict[str, Row]:
    """By the name that files and `--rows` use."""
    found = {
        f"minmax{b}": Row(
            f"min-max per tensor, {b} bits", everywhere(MinMaxRange(b)), before=True, epochs=_EPOCHS.get(b, 2)
        )
        for b in (6, 5, 4, 3, 2)
    }
    for bits in ((4, 4, 2), (4, 2, 4), (2, 4, 4)):
        digits = "".join(map(str, bits))
        found[f"minmax{digits}"] = Row(f"min-max per tensor, stages {bits}", by_stage(bits), before=True)
    found["hwgq2"] = Row(
        "HWGQ, activations of 2 bits",
        everywhere(Linear(8), Activations(2)),
        QatOptions("hwgq", weights_only=True),
        epochs=4,
    )
    found["ttq"] = Row("TTQ", everywhere(TrainedTernary()), epochs=4)
    found["binary"] = Row(
        "binary (XNOR-Net)",
        everywhere(Binary(), signs=True),
        epochs=4,
        rate=1e-2,
    )
    found["hwgqlloyd2"] = Row(
        "HWGQ at Lloyd's levels, activations of 2 bits",
        everywhere(Linear(8), Activations(2, levels="lloyd")),
        QatOptions("hwgq-lloyd", weights_only=True),
        epochs=4,
    )
    for bases in (1, 3, 5):
        found[f"abc{bases}"] = Row(
            f"ABC-Net, {bases} bases of weights", everywhere(AbcNet(bases)), epochs=4 if bases == 1 else 2
        )
        found[f"abcact{bases}"] = Row(
            f"ABC-Net, {bases} bases of weights and activations",
            everywhere(AbcNet(bases), Activations(bases, levels="abc")),
            QatOptions("abc", weights_only=True),
            epochs=4 if bases == 1 else 2,
        )
    for b in (4, 3, 2):
        found[f"codebook{b}"] = Row(
            f"k-means codebook, {b} bits", everywhere(KMeans(b)), before=True, epochs=_EPOCHS.get(b, 2)
        )
    learned: tuple[tuple[str, str, WeightSteps], ...] = (
        ("centroids", "codebook of fine-tuned centroids", "centroids"),
        ("moving", "codebook of centroids that move through the weights", "centroids-moving"),
    )
    for name, title, weights in learned:
        for b in (4, 3, 2):
            training = QatOptions(weights=weights, weights_only=True)
            found[f"{name}{b}"] = Row(
                f"{title}, {b} bits", everywhere(KMeans(b)), training, epochs=_EPOCHS.get(b, 2)
            )
    for b in (4, 3, 2):
        found[f"lsq{b}"] = Row(
            f"LSQ, weights and activations of {b} bits",
            everywhere(Linear(b), Activations(b)),
            QatOptions("lsq", weights="lsq", weights_only=True),
            epochs=_EPOCHS.get(b, 2),
        )
    found["pact3"] = Row(
        "PACT, weights (LSQ) and activations of 3 bits",
        everywhere(Linear(3), Activations(3)),
        QatOptions("pact", weights="lsq", weights_only=True),
    )
    found["stochastic3"] = Row(
        "LSQ, weights alone of 3 bits, rounded at random",
        everywhere(Linear(3)),
        replace(LEARNED_STEPS, rounding="stochastic"),
    )
    found["linear2"] = Row("LSQ, weights alone of 2 bits", everywhere(Linear(2)), LEARNED_STEPS, epochs=4)
    found["falling2"] = Row(
        "LSQ, weights alone, bits that fall from 8 to 2",
        everywhere(Linear(2)),
        replace(LEARNED_STEPS, bits_from=8),
        epochs=4,
    )
    # The mixtures are trained as long as the uniform bits that they are held against.
    for b in (4, 3):
        for name, title, recipe in (
            (f"linear{b}", f"LSQ, weights alone of {b} bits", everywhere(Linear(b))),
            (f"gain{b}", f"LSQ, noise-gain mixture at the weight bits of {b}", noise_gain(b)),
            (f"budget{b}", f"LSQ, mixture by sensitivity within the weight bits of {b}", sensitivity(b)),
        ):
            found[name] = Row(title, recipe, LEARNED_STEPS, before=True, epochs=_EPOCHS.get(b, 2))
    return found
