"""Published networks as float graphs, for counting: their weights are one number that takes no memory."""

from __future__ import annotations

import numpy as np
from graphs import GraphBuilder, Shape, add, conv_2d, fully_connected, mean, pool, reshape

from tinydeploy import ops
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import DType, Value
from tinydeploy.ops import Activation, Padding


class CountingBuilder(GraphBuilder):
    """A builder whose constants repeat one number with strides of zero."""

    def __init__(self) -> None:
        super().__init__(0, is_float=True)

    def weights(self, shape: Shape, axis: int, *, per_channel: bool = True) -> Value:
        del axis, per_channel
        data = np.broadcast_to(np.float32(0.01), shape)
        return self._add(Value(f"weights_{len(self._values)}", DType.FLOAT32, shape, None, data))

    def bias(self, x: Value, weights: Value, outputs: int) -> Value:
        del x, weights
        return self.weights((outputs,), 0)


def _conv(
    b: GraphBuilder, x: Value, outputs: int, kernel: int, stride: int = 1, *, relu: bool = True
) -> Value:
    side = kernel // 2
    return conv_2d(
        b,
        x=x,
        outputs=outputs,
        kernel=(kernel, kernel),
        strides=(stride, stride),
        padding=Padding(side, side, side, side),
        activation=Activation.RELU if relu else Activation.NONE,
    )


def _block(b: GraphBuilder, x: Value, outputs: int, stride: int) -> Value:
    """Two 3x3 convolutions beside the identity, or beside a 1x1 projection where shapes change."""
    y = _conv(b, _conv(b, x, outputs, 3, stride), outputs, 3, relu=False)
    beside = x if stride == 1 and x.shape[3] == outputs else _conv(b, x, outputs, 1, stride, relu=False)
    return add(b, inputs=[y, beside], activation=Activation.RELU)


def _head(b: GraphBuilder, x: Value, classes: int) -> Graph:
    return b.graph(fully_connected(b, x=mean(b, x=x), outputs=classes))


def resnet20() -> Graph:
    """For CIFAR-10, with 1x1 projections: 16, 32, 64 channels, three blocks each."""
    b = CountingBuilder()
    x = _conv(b, b.input((1, 32, 32, 3)), 16, 3)
    for outputs in (16, 32, 64):
        for i in range(3):
            x = _block(b, x, outputs, 2 if i == 0 and outputs > 16 else 1)
    return _head(b, x, 10)


def resnet18() -> Graph:
    """For ImageNet at 224x224."""
    b = CountingBuilder()
    x = _conv(b, b.input((1, 224, 224, 3)), 64, 7, 2)
    x = pool(b, ops.MaxPool2D, x=x, kernel=(3, 3), padding=Padding(1, 1, 1, 1))
    for outputs in (64, 128, 256, 512):
        for i in range(2):
            x = _block(b, x, outputs, 2 if i == 0 and outputs > 64 else 1)
    return _head(b, x, 1000)


def vgg11() -> Graph:
    """For ImageNet at 224x224, configuration A."""
    b = CountingBuilder()
    x = b.input((1, 224, 224, 3))
    for widths in ((64,), (128,), (256, 256), (512, 512), (512, 512)):
        for outputs in widths:
            x = _conv(b, x, outputs, 3)
        x = pool(b, ops.MaxPool2D, x=x)
    x = reshape(b, x=x, to=(1, x.elements))
    for outputs in (4096, 4096, 1000):
        x = fully_connected(b, x=x, outputs=outputs)
    return b.graph(x)
