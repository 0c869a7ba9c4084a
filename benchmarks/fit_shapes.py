"""Seeded layers and networks for benchmarks/fit_estimate.py; the makers are those of the tests."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from graphs import MAKERS, GraphBuilder, add, conv_2d, depthwise_conv_2d, fully_connected, pool, softmax

from tinydeploy import ops
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import Value
from tinydeploy.model import load_model
from tinydeploy.ops import Activation

DIGITS = Path(__file__).resolve().parent.parent / "fixtures" / "digits" / "digits_int8.tflite"
Rng = np.random.Generator
Maker = Callable[[GraphBuilder, Rng], Value]
MOST_MACS = 150_000
LAYERS = 9


def _conv(b: GraphBuilder, rng: Rng) -> Value:
    while True:
        channels, outputs = (int(rng.choice((1, 2, 3, 4, 8, 12, 16, 24, 32, 48, 64))) for _ in range(2))
        kernel = [(1, 1), (3, 3), (3, 3), (5, 5), (1, 3), (10, 4)][rng.integers(6)]
        size = int(rng.integers(3, 25)), int(rng.integers(3, 25))
        strides = (2, 2) if rng.random() < 0.3 else (1, 1)
        pixels = math.prod(size) // math.prod(strides)
        if pixels * math.prod(kernel) * channels * max(4, outputs) <= MOST_MACS and outputs > 3:
            break
    padding = "same" if rng.random() < 0.7 or min(size) < max(kernel) else "valid"
    shape = (1, *size, channels)
    return conv_2d(
        b, shape=shape, outputs=outputs, kernel=kernel, strides=strides, padding=padding, **_some(rng)
    )


def _square(b: GraphBuilder, rng: Rng) -> Value:
    """3x3 at stride 1 with as many channels in as out, where Winograd's form is a candidate."""
    channels = int(rng.choice((8, 12, 16, 24, 32)))
    shape = (1, int(rng.integers(6, 25)), int(rng.integers(6, 25)), channels)
    return conv_2d(b, shape=shape, outputs=channels, kernel=(3, 3), padding="same", **_some(rng))


def _pointwise(b: GraphBuilder, rng: Rng) -> Value:
    channels, outputs = (int(rng.choice((4, 8, 12, 16, 24, 32, 48, 64, 96))) for _ in range(2))
    pixels = int(rng.integers(1, max(2, MOST_MACS // (channels * outputs))))
    rows = int(rng.integers(1, 8))
    shape = (1, rows, max(1, pixels // rows), channels)
    return conv_2d(b, shape=shape, outputs=outputs, kernel=(1, 1), padding="valid", **_some(rng))


def _depthwise(b: GraphBuilder, rng: Rng) -> Value:
    channels = int(rng.choice((3, 4, 8, 16, 24, 32, 64, 96)))
    kernel = [(3, 3), (3, 3), (3, 3), (5, 5), (1, 3)][rng.integers(5)]
    size = int(rng.integers(3, 21)), int(rng.integers(3, 21))
    strides = (2, 2) if rng.random() < 0.35 else (1, 1)
    padding = "same" if rng.random() < 0.8 or min(size) < max(kernel) else "valid"
    shape = (1, *size, channels)
    return depthwise_conv_2d(b, shape=shape, kernel=kernel, strides=strides, padding=padding, **_some(rng))


def _sequence(b: GraphBuilder, rng: Rng) -> Value:
    """A depthwise convolution over time."""
    shape = (1, int(rng.integers(12, 40)), 1, int(rng.choice((8, 16, 32, 40, 64, 96, 128))))
    rows = int(rng.choice((3, 5, 7, 10)))
    padding = "same" if rng.random() < 0.4 else "valid"
    return depthwise_conv_2d(b, shape=shape, kernel=(rows, 1), padding=padding, **_some(rng))


def _dense(b: GraphBuilder, rng: Rng) -> Value:
    shape = (1, int(rng.integers(4, 640)))
    outputs = int(rng.choice((1, 2, 3, 10, 12, 16, 32, 64, 128)))
    return fully_connected(b, shape=shape, outputs=outputs, **_some(rng))


def _pool(kind: type[ops.AveragePool2D] | type[ops.MaxPool2D]) -> Maker:
    def make(b: GraphBuilder, rng: Rng) -> Value:
        size = int(rng.integers(2, 21)), int(rng.integers(2, 21))
        shape = (1, *size, int(rng.choice((2, 4, 8, 16, 32, 64))))
        if rng.random() < 0.4:
            return pool(b, kind, shape=shape, kernel=size, strides=size)
        side = int(rng.integers(2, 1 + min(3, *size)))
        return pool(b, kind, shape=shape, kernel=(side, side), strides=(2, 2))

    return make


def _plain(kind: str) -> Maker:
    def make(b: GraphBuilder, rng: Rng) -> Value:
        image = (1, int(rng.integers(1, 17)), int(rng.integers(1, 17)), int(rng.choice((2, 4, 8, 16, 32))))
        row = (1, int(rng.integers(2, 200)))
        shapes = {"ADD": (image, image), "MUL": (image, image), "CONCATENATION": (image, image)}
        if kind in shapes:
            return MAKERS[kind](b, shapes=shapes[kind])
        return MAKERS[kind](b, shape=row if kind in ("SOFTMAX", "LOGISTIC", "QUANTIZE") else image)

    return make


def _some(rng: Rng) -> dict[str, object]:
    return {"activation": Activation.RELU if rng.random() < 0.6 else Activation.NONE}


PLAIN = ("ADD", "MUL", "CONCATENATION", "PAD", "MEAN", "SOFTMAX", "LOGISTIC", "RELU", "QUANTIZE")
LINEAR: dict[str, tuple[Maker, int]] = {
    "conv": (_conv, 3),
    "square": (_square, 2),
    "pointwise": (_pointwise, 2),
    "depthwise": (_depthwise, 3),
    "sequence": (_sequence, 1),
    "dense": (_dense, 4),
}
OTHERS: dict[str, tuple[Maker, int]] = {
    "average": (_pool(ops.AveragePool2D), 2),
    "max": (_pool(ops.MaxPool2D), 2),
    **{kind.lower(): (_plain(kind), 2 if kind == "ADD" else 1) for kind in PLAIN},
}


def layer_graphs(*, linear_only: bool) -> Iterator[Graph]:
    """Graphs of many layers of one kind beside each other, each with inputs of its own."""
    kinds = LINEAR if linear_only else {**LINEAR, **OTHERS}
    for number, (name, (make, graphs)) in enumerate(kinds.items()):
        for repeat in range(graphs):
            seed = 1000 * number + repeat
            b, rng = GraphBuilder(seed), np.random.default_rng(seed)
            outputs = [make(b, rng) for _ in range(LAYERS)]
            yield b.graph(*outputs, name=name)


def networks() -> Iterator[Graph]:
    """What nothing is fitted on: separable, residual, over time, fully connected, and the trained fixture."""
    yield load_model(str(DIGITS)).graph
    for seed in range(4):
        yield _separable(seed)
        yield _residual(seed)
    for seed in range(2):
        yield _over_time(seed)
        yield _dense_network(seed)


def _separable(seed: int) -> Graph:
    rng, b = np.random.default_rng(seed), GraphBuilder(10_000 + seed)
    width = int(rng.choice((8, 16, 24, 32)))
    relu = Activation.RELU
    x = b.input((1, int(rng.integers(16, 33)), int(rng.integers(10, 25)), int(rng.choice((1, 3)))))
    x = conv_2d(b, x=x, outputs=width, strides=(2, 2), activation=relu)
    for step in range(int(rng.integers(2, 5))):
        strides = (2, 2) if step == 1 else (1, 1)
        x = depthwise_conv_2d(b, x=x, strides=strides, activation=relu)
        width = int(min(64, width * rng.choice((1, 2))))
        x = conv_2d(b, x=x, outputs=width, kernel=(1, 1), padding="valid", activation=relu)
    x = pool(b, ops.AveragePool2D, x=x, kernel=x.shape[1:3], strides=x.shape[1:3])
    x = fully_connected(b, x=MAKERS["RESHAPE"](b, x=x, to=(1, width)), outputs=int(rng.integers(2, 13)))
    return b.graph(softmax(b, x=x), name=f"separable {seed}")


def _residual(seed: int) -> Graph:
    rng, b = np.random.default_rng(seed), GraphBuilder(20_000 + seed)
    width = int(rng.choice((8, 12, 16)))
    x = b.input((1, int(rng.integers(12, 25)), int(rng.integers(12, 25)), 3))
    x = conv_2d(b, x=x, outputs=width, activation=Activation.RELU)
    for _ in range(int(rng.integers(1, 3))):
        y = conv_2d(b, x=x, outputs=width, activation=Activation.RELU)
        x = add(b, inputs=[x, conv_2d(b, x=y, outputs=width)], activation=Activation.RELU)
        x = conv_2d(b, x=x, outputs=2 * width, strides=(2, 2), activation=Activation.RELU)
        width *= 2
    x = pool(b, ops.AveragePool2D, x=x, kernel=x.shape[1:3], strides=x.shape[1:3])
    return b.graph(
        softmax(b, x=fully_connected(b, x=MAKERS["RESHAPE"](b, x=x, to=(1, width)), outputs=10)),
        name=f"residual {seed}",
    )


def _dense_network(seed: int) -> Graph:
    rng, b = np.random.default_rng(seed), GraphBuilder(30_000 + seed)
    x = b.input((1, int(rng.integers(60, 400))))
    for width in rng.choice((16, 32, 64, 128), int(rng.integers(2, 6))):
        x = fully_connected(b, x=x, outputs=int(width), activation=Activation.RELU)
    return b.graph(fully_connected(b, x=x, outputs=int(rng.integers(2, 60))), name=f"dense {seed}")


def _over_time(seed: int) -> Graph:
    rng, b = np.random.default_rng(seed), GraphBuilder(40_000 + seed)
    x = b.input((1, int(rng.integers(24, 40)), 1, int(rng.choice((20, 40)))))
    for _ in range(int(rng.integers(2, 4))):
        rows = int(rng.choice((3, 5, 8)))
        x = depthwise_conv_2d(b, x=x, kernel=(rows, 1), padding="valid", activation=Activation.RELU)
        width = int(rng.choice((32, 64)))
        x = conv_2d(b, x=x, outputs=width, kernel=(1, 1), padding="valid", activation=Activation.RELU)
    x = depthwise_conv_2d(b, x=x, kernel=(x.shape[1], 1), padding="valid")
    row = MAKERS["RESHAPE"](b, x=x, to=(1, width))
    return b.graph(fully_connected(b, x=row, outputs=4), name=f"time {seed}")
