"""Named graphs about what lies between the kernels: shared buffers, views, inputs, outputs, uint8 borders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from graphs import (
    GraphBuilder,
    Shape,
    add,
    concatenation,
    conv_2d,
    depthwise_conv_2d,
    fully_connected,
    logistic,
    mean,
    mul,
    pad,
    pool,
    quantize,
    relu,
    reshape,
    softmax,
)

from tinydeploy import ops
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import DType, Quantization, Value
from tinydeploy.ops import Activation

Maker = Callable[[], Graph]
UINT8 = Quantization((0.03125,), (131,))


def _several_inputs_and_outputs() -> Graph:
    b = GraphBuilder(20)
    x, y, z = b.input((1, 4, 4, 3)), b.input((1, 4, 4, 3)), b.input((1, 5))
    both = add(b, inputs=[x, y])
    return b.graph(softmax(b, x=z), conv_2d(b, x=both), both, mul(b, inputs=[both, x]))


def _two_inputs() -> Graph:
    b = GraphBuilder(21)
    return b.graph(concatenation(b, inputs=[b.input((1, 7)), b.input((1, 3))], axis=1))


def _output_read_later(*, twice: bool) -> Graph:
    b = GraphBuilder(22)
    first = conv_2d(b, x=b.input((1, 6, 5, 3)), outputs=4)
    second = relu(b, x=first, activation=Activation.RELU6)
    third = add(b, inputs=[second, first])
    return b.graph(first, third, *([second] if twice else []))


def _input_read_late() -> Graph:
    b = GraphBuilder(23)
    x = b.input((1, 5, 4, 4))
    y = x
    for _ in range(4):
        y = conv_2d(b, x=y, outputs=4)
    return b.graph(add(b, inputs=[y, x]))


def _in_place_chain() -> Graph:
    b = GraphBuilder(24)
    y = b.input((1, 6, 5, 3))
    y = add(b, inputs=[y, b.activation_constant((1, 1, 1, 3))])
    y = relu(b, x=y, activation=Activation.RELU6)
    y = mul(b, inputs=[b.activation_constant((1, 6, 5, 1)), y])
    return b.graph(logistic(b, x=y))


def _in_place_over_the_second_operand() -> Graph:
    b = GraphBuilder(25)
    x = b.input((1, 6, 5, 3))
    y = conv_2d(b, x=x, outputs=3)
    z = add(b, inputs=[x, y])
    return b.graph(add(b, inputs=[conv_2d(b, x=x, outputs=3), z]))


def _in_place_under_a_broadcast() -> Graph:
    b = GraphBuilder(26)
    x = b.input((1, 6, 5, 3))
    gate = logistic(b, x=mean(b, x=x, keep_dims=True))
    return b.graph(mul(b, inputs=[gate, conv_2d(b, x=x, outputs=3)]))


def _views(*targets: Shape, output_too: bool = False) -> Graph:
    """Reshapes of one layer's output, which is an output itself where `output_too`."""
    b = GraphBuilder(27)
    y = relu(b, x=b.input((1, 4, 3, 2)), activation=Activation.RELU_N1_TO_1)
    return b.graph(*([y] if output_too else []), *(reshape(b, x=y, to=t) for t in targets))


def _view_chain(*, ends_in_output: bool) -> Graph:
    b = GraphBuilder(28)
    y = reshape(b, x=b.input((1, 4, 3, 2)), to=(12, 2))
    y = reshape(b, x=y, to=(2, 12))
    return b.graph(y if ends_in_output else fully_connected(b, x=y))


def _view_kept_while_the_original_dies() -> Graph:
    b = GraphBuilder(29)
    x = conv_2d(b, x=b.input((1, 4, 3, 2)), outputs=4)
    flat = reshape(b, x=x, to=(1, 48))
    y = relu(b, x=x, activation=Activation.RELU)
    z = fully_connected(b, x=reshape(b, x=y, to=(1, 48)), outputs=48)
    return b.graph(add(b, inputs=[z, flat]))


def _input_to_two_outputs() -> Graph:
    b = GraphBuilder(30)
    x = b.input((2, 6))
    return b.graph(reshape(b, x=x, to=(12,)), reshape(b, x=x, to=(3, 4)))


def _identity(*, more: bool) -> Graph:
    b = GraphBuilder(31)
    x = b.input((2, 6))
    return b.graph(x, relu(b, x=x)) if more else b.graph(x)


def _uint8_network() -> Graph:
    b = GraphBuilder(32)
    x = quantize(b, x=b.input((1, 6, 5, 3), UINT8, DType.UINT8))
    y = conv_2d(b, x=x, outputs=4)
    return b.graph(quantize(b, x=y, target=DType.UINT8))


def _uint8_reshapes(*, straight: bool) -> Graph:
    b = GraphBuilder(33)
    x = b.input((1, 4, 3), UINT8, DType.UINT8)
    flat = b.node(ops.Reshape((1, 12)), [x], UINT8, DType.UINT8)
    if straight:
        return b.graph(flat)
    back = quantize(b, x=fully_connected(b, x=quantize(b, x=flat), outputs=6), target=DType.UINT8)
    return b.graph(b.node(ops.Reshape((2, 3)), [back], back.quantization, DType.UINT8))


def _uint8_io() -> Graph:
    b = GraphBuilder(34)
    x, y = b.input((1, 9), UINT8, DType.UINT8), b.input((1, 9))
    inside = quantize(b, x=x)
    outside = quantize(b, x=add(b, inputs=[inside, y]), target=DType.UINT8)
    # A uint8 tensor that is no input and no output, and lives in the arena.
    again = quantize(b, x=outside)
    return b.graph(fully_connected(b, x=again), outside)


def _dead_layers() -> Graph:
    b = GraphBuilder(35)
    x = b.input((1, 5, 4, 3))
    conv_2d(b, x=x, outputs=9)
    y = conv_2d(b, x=x)
    relu(b, x=y)
    unread = b.input((1, 3))
    softmax(b, x=unread)
    return b.graph(conv_2d(b, x=y))


def _every_value_twice() -> Graph:
    b = GraphBuilder(36)
    x = b.input((1, 3, 3, 2))
    y = concatenation(b, inputs=[x, x, conv_2d(b, x=x, outputs=2)])
    return b.graph(add(b, inputs=[y, y]))


def _deep_padding() -> Graph:
    b = GraphBuilder(37)
    y = pad(b, x=depthwise_conv_2d(b, x=b.input((2, 5, 4, 3)), multiplier=2))
    y = pool(b, ops.AveragePool2D, x=pool(b, ops.MaxPool2D, x=y, padding="same", kernel=(3, 3)))
    return b.graph(mean(b, x=y, axes=(1, 3)))


def _scalar() -> Graph:
    b = GraphBuilder(38)
    return b.graph(mean(b, x=b.input((3,)), axes=(0,)))


def _of_constants(make: Callable[[GraphBuilder, Value], Value], shape: Shape) -> Graph:
    """An output that only constants decide stands beside one that the input does."""
    b = GraphBuilder(39)
    c = b.activation_constant(shape)
    return b.graph(relu(b, x=b.input((1, 4))), make(b, c))


_CONSTANT: dict[str, tuple[Callable[[GraphBuilder, Value], Value], Shape]] = {
    "ADD": (lambda b, c: add(b, inputs=[c, c]), (1, 4)),
    "MUL": (lambda b, c: mul(b, inputs=[c, b.activation_constant((4,))]), (1, 4)),
    "AVERAGE_POOL_2D": (lambda b, c: pool(b, ops.AveragePool2D, x=c), (1, 4, 4, 3)),
    "CONCATENATION": (lambda b, c: concatenation(b, inputs=[c, c], axis=1), (1, 4)),
    "CONV_2D": (lambda b, c: conv_2d(b, x=c), (1, 4, 4, 3)),
    "DEPTHWISE_CONV_2D": (lambda b, c: depthwise_conv_2d(b, x=c), (1, 4, 4, 3)),
    "FULLY_CONNECTED": (lambda b, c: fully_connected(b, x=c), (1, 9)),
    "LOGISTIC": (lambda b, c: logistic(b, x=c), (1, 9)),
    "MAX_POOL_2D": (lambda b, c: pool(b, ops.MaxPool2D, x=c), (1, 4, 4, 3)),
    "MEAN": (lambda b, c: mean(b, x=c), (1, 4, 4, 3)),
    "PAD": (lambda b, c: pad(b, x=c), (1, 4, 4, 3)),
    "QUANTIZE": (lambda b, c: quantize(b, x=c), (1, 9)),
    "QUANTIZE to uint8": (lambda b, c: quantize(b, x=c, target=DType.UINT8), (1, 9)),
    "RELU": (lambda b, c: relu(b, x=c, rescale=1.5), (1, 9)),
    "RESHAPE": (lambda b, c: reshape(b, x=c, to=(3, 3)), (1, 9)),
    "SOFTMAX": (lambda b, c: softmax(b, x=c), (1, 9)),
}

WIRING: dict[str, Maker] = {
    "several inputs and outputs": _several_inputs_and_outputs,
    "two inputs, one output": _two_inputs,
    "an output that later layers read": partial(_output_read_later, twice=False),
    "two outputs that later layers read": partial(_output_read_later, twice=True),
    "an input that the last layer reads": _input_read_late,
    "a chain in place": _in_place_chain,
    "in place over the second operand": _in_place_over_the_second_operand,
    "in place under a broadcast": _in_place_under_a_broadcast,
    "a view as the output": partial(_views, (1, 24)),
    "two views as outputs": partial(_views, (1, 24), (4, 6)),
    "an output and its view": partial(_views, (1, 24), output_too=True),
    "an output and two views": partial(_views, (1, 24), (2, 12), output_too=True),
    "views of the input, read": partial(_view_chain, ends_in_output=False),
    "a view of a view of the input as the output": partial(_view_chain, ends_in_output=True),
    "a view that outlives the original": _view_kept_while_the_original_dies,
    "the input as two outputs": _input_to_two_outputs,
    "the input as the output": partial(_identity, more=False),
    "the input as one of two outputs": partial(_identity, more=True),
    "uint8 in and out": _uint8_network,
    "uint8 through views": partial(_uint8_reshapes, straight=False),
    "uint8 copied": partial(_uint8_reshapes, straight=True),
    "uint8 and int8 side by side": _uint8_io,
    "layers that nothing reads": _dead_layers,
    "one value several times": _every_value_twice,
    "padding and pools in two images": _deep_padding,
    "a scalar": _scalar,
    **{f"{kind} of constants": partial(_of_constants, *given) for kind, given in _CONSTANT.items()},
}
"""A maker by name."""


def random_network(seed: int, layers: int = 12) -> Graph:
    """A random network of image ops with shared values, views, dead layers and several outputs."""
    b = GraphBuilder(seed)
    rng = b.rng
    size = (int(rng.integers(3, 9)), int(rng.integers(3, 9)))
    alive: list[Value] = [
        b.input((1, *size, int(rng.integers(1, 6)))) for _ in range(int(rng.integers(1, 3)))
    ]
    for _ in range(layers):
        alive.append(_random_layer(b, alive))
    count = int(rng.integers(1, 4))
    chosen = {alive[-1].name: alive[-1]}
    made = [v for v in alive if not v.name.startswith("input_")]
    for i in rng.integers(0, len(made), count - 1):
        chosen[made[i].name] = made[i]
    return replace(b.graph(*chosen.values()), name=f"random_{seed}")


def _random_layer(b: GraphBuilder, alive: Sequence[Value]) -> Value:
    rng = b.rng
    x = alive[int(rng.integers(max(0, len(alive) - 4), len(alive)))]
    same = [v for v in alive if v.shape == x.shape]
    other = same[int(rng.integers(0, len(same)))]
    activation = list(Activation)[int(rng.integers(0, 2))]
    stride = (2, 2) if min(x.shape[1:3]) > 4 and rng.random() < 0.2 else (1, 1)
    channels = int(rng.integers(1, 8))
    kernel = (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
    flat = (1, 1, 1, x.elements)
    choices: list[Callable[[], Value]] = [
        lambda: conv_2d(b, x=x, outputs=channels, kernel=kernel, strides=stride, activation=activation),
        lambda: depthwise_conv_2d(b, x=x, kernel=kernel, strides=stride, multiplier=1 + channels % 2),
        lambda: pool(b, ops.MaxPool2D, x=x, kernel=kernel, strides=stride, padding="same"),
        lambda: pool(b, ops.AveragePool2D, x=x, kernel=kernel, strides=stride, padding="same"),
        lambda: add(b, inputs=[x, other], activation=activation),
        lambda: mul(b, inputs=[x, other]),
        lambda: add(b, inputs=[b.activation_constant((x.shape[3],)), x]),
        lambda: relu(b, x=x, rescale=float(rng.uniform(0.5, 2))),
        lambda: logistic(b, x=x),
        lambda: mul(b, inputs=[x, mean(b, x=x, keep_dims=True)]),
        lambda: concatenation(b, inputs=[x, other]) if x.shape[3] < 12 else relu(b, x=x),
        lambda: pad(b, x=x) if x.elements < 300 else softmax(b, x=x),
        lambda: reshape(b, x=reshape(b, x=x, to=flat), to=x.shape),
    ]
    return choices[int(rng.integers(0, len(choices)))]()
