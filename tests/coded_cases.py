"""Networks whose weights are indices into a table, some used far more than others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from graphs import GraphBuilder, conv_2d, depthwise_conv_2d, fully_connected, mean

from tinydeploy.ir.forms import Codebook
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import constant
from tinydeploy.ir.verify import verify
from tinydeploy.plan.forms import Linear

SKEWED, EVEN = 0.25, 1e6
"""How unevenly indices are used: the parameter of a symmetric Dirichlet distribution."""


def network(bits: int = 4, spread: float = SKEWED, *, channels: int = 64, seed: int = 0) -> Graph:
    """Two pointwise convolutions with a depthwise one between, and a fully connected layer."""
    b = GraphBuilder(seed)
    x = b.input((1, 6, 5, 12))
    y = conv_2d(b, x=x, outputs=channels, kernel=(3, 3))
    y = depthwise_conv_2d(b, x=y)
    y = conv_2d(b, x=y, outputs=channels, kernel=(1, 1))
    return indexed(b.graph(fully_connected(b, x=mean(b, x=y), outputs=10)), bits, spread, seed)


def indexed(graph: Graph, bits: int, spread: float, seed: int = 0) -> Graph:
    """The graph with random indices for weights, and scales that keep their size."""
    rng = np.random.default_rng((seed, bits))
    values = dict(graph.values)
    for node in graph.nodes:
        if not isinstance(node.op, Linear):
            continue
        weights = values[str(node.inputs[1])]
        table = np.sort(rng.choice(np.arange(-127, 128), 1 << bits, replace=False))
        shares = rng.dirichlet(np.full(len(table), spread))
        data = rng.choice(table, weights.shape, p=shares).astype(np.int8)
        size = (np.abs(weights.array.astype(float)).mean() + 1) / (np.abs(data.astype(float)).mean() + 1)
        scales = tuple(float(s * size) for s in weights.quant.scales)
        quantization = replace(weights.quant, scales=scales)
        form = Codebook(bits, tuple(table.tolist()))
        values[weights.name] = constant(weights.name, data, quantization, form)
    result = replace(graph, values=values)
    verify(result)
    return result
