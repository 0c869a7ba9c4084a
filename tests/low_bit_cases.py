"""Small float networks and recipes of every scheme, for the tests of few bits."""

from __future__ import annotations

from typing import Any

import numpy as np
from graphs import GraphBuilder, add, conv_2d, depthwise_conv_2d, fully_connected, mean, pool

from tinydeploy import ops
from tinydeploy.ir.graph import Graph
from tinydeploy.ops import Activation
from tinydeploy.quantize.recipe import LayerRule, Recipe, Treatment
from tinydeploy.quantize.scales import Activations
from tinydeploy.quantize.schemes import AbcNet, Binary, KMeans, Linear, Scheme, Ternary


def everywhere(scheme: Scheme, activations: Activations | None = None, *, signs: bool = False) -> Recipe:
    return Recipe(default=Treatment(scheme, activations or Activations(), signs))


def inside(scheme: Scheme, *, signs: bool = False) -> Recipe:
    """As the command line has it for bit planes: not the first, the last and depthwise layers."""
    return Recipe(default=Treatment(scheme, signs=signs), ends=False)


RECIPES: dict[str, Recipe] = {
    "linear 4": everywhere(Linear(4)),
    "linear 3 full range": everywhere(Linear(3, full=True)),
    "linear 2": everywhere(Linear(2)),
    "linear 5 per tensor": everywhere(Linear(5, per_tensor=True)),
    "weights and activations of 4 bits": everywhere(Linear(4), Activations(4)),
    "symmetric activations of 6 bits": everywhere(Linear(8), Activations(6, symmetric=True)),
    "codebook 3": everywhere(KMeans(3)),
    "ternary": inside(Ternary()),
    "ternary everywhere": everywhere(Ternary()),
    "binary weights": everywhere(Binary()),
    "binary": inside(Binary(), signs=True),
    "binary everywhere": everywhere(Binary(), signs=True),
    "abc 3": inside(AbcNet(3)),
    "three bases of activations": everywhere(AbcNet(2), Activations(3, levels="abc")),
    "Lloyd's levels of activations": everywhere(Linear(4), Activations(2, levels="lloyd")),
    "mixed": Recipe(
        (
            LayerRule("conv_2d_0", Treatment(Linear(4), Activations(8))),
            LayerRule("depthwise*", Treatment(KMeans(4))),
            LayerRule("conv_2d_2", Treatment(AbcNet(2), signs=True)),
            LayerRule("fully*", Treatment(Linear(2, full=True))),
        ),
        Treatment(Ternary(), Activations(5)),
    ),
}


def network(seed: int = 0) -> Graph:
    """A residual network with every linear layer; convolutions of signed and of clamped inputs, padded."""
    b = GraphBuilder(seed, is_float=True)
    x = conv_2d(b, shape=(1, 8, 8, 3), outputs=8, activation=Activation.RELU)
    y = depthwise_conv_2d(b, x=x)
    y = conv_2d(b, x=y, outputs=8)
    y = add(b, inputs=[x, y], activation=Activation.RELU)
    y = conv_2d(b, x=y, outputs=12, strides=(2, 2))
    y = pool(b, ops.MaxPool2D, x=y)
    return b.graph(fully_connected(b, x=mean(b, x=y), outputs=5))


def samples(graph: Graph, count: int = 32, seed: int = 1) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [rng.normal(0, 1, (count, *graph.value(n).shape)).astype(np.float32) for n in graph.inputs]
