"""Readers of PyTorch's layers with weights: convolutions, linear layers and batch norms."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinydeploy import ops
from tinydeploy.errors import DeployError
from tinydeploy.frontends.torch_builder import At
from tinydeploy.frontends.torch_layout import Held, channels_last, constant_as_held, rows_of
from tinydeploy.ir.op import Op, Site
from tinydeploy.ir.types import Array, Value
from tinydeploy.ops import Padding


def pair(value: Any, rank: int) -> tuple[int, int]:
    """A (height, width) attribute; one number stands for both, and a sequence has height 1."""
    numbers = list(value) if isinstance(value, tuple) else [value]
    if len(numbers) == 1 and rank == 4:
        numbers *= 2
    if len(numbers) != rank - 2:
        raise DeployError(f"the attribute {value} does not fit {rank - 2} spatial axes")
    height = 1 if rank == 3 else int(numbers[0])
    return height, int(numbers[-1])


def zero_pair(value: Any, rank: int) -> tuple[int, int]:
    """Like `pair`, for paddings, where a sequence has none above and below."""
    return (0, pair(value, rank)[1]) if rank == 3 else pair(value, rank)


def symmetric(pads: tuple[int, int]) -> Padding:
    return Padding(pads[0], pads[0], pads[1], pads[1])


def convolution(at: At) -> Held:
    """conv1d, conv2d and convolution, with any groups; one input channel a group makes it depthwise."""
    x = at.held(at.first())
    weights = at.array(at.get("weight"), "weight").astype(np.float32)
    rank, groups = weights.ndim, int(at.get("groups", 1))
    if at.get("transposed", False):
        raise DeployError("transposed convolutions are not supported")
    if rank not in (3, 4) or x.rank != rank:
        raise DeployError(
            f"an input of shape {x.shape} and weights of shape {weights.shape}; 1 or 2 axes slide"
        )
    if rank == 3:
        weights = weights[:, :, np.newaxis, :]
    strides, dilations = pair(at.get("stride", 1), rank), pair(at.get("dilation", 1), rank)
    kernel = (weights.shape[2], weights.shape[3])
    padding = _padding(at.get("padding", 0), kernel, dilations, rank)
    channels, outputs = x.shape[1], weights.shape[0]
    if groups < 1 or channels != weights.shape[1] * groups or outputs % groups:
        raise DeployError(f"{channels} channels and weights of shape {weights.shape} in {groups} groups")
    if groups == channels and groups > 1:
        op: Op = ops.DepthwiseConv2D(strides, dilations, padding)
        weights = weights.transpose(1, 2, 3, 0)
    else:
        op = ops.Conv2D(strides, dilations, padding)
        weights = weights.transpose(0, 2, 3, 1)
    inputs = [at.builder.place(x, channels_last(x.shape)), *_parameters(at, weights, outputs)]
    _, rows, columns, _ = op.output_shape(Site(tuple(inputs), ()))
    shape = (1, outputs, columns) if rank == 3 else (1, outputs, rows, columns)
    return at.builder.emit(at.name_from(at.get("weight")), op, inputs, shape, channels_last(shape))


def _padding(padding: Any, kernel: tuple[int, int], dilations: tuple[int, int], rank: int) -> Padding:
    """PyTorch's "same" puts the odd row at the end, and allows stride 1 only."""
    if padding == "valid":
        return Padding()
    if padding == "same":
        totals = [(k - 1) * d for k, d in zip(kernel, dilations, strict=True)]
        (top, left), (bottom, right) = ([t // 2 for t in totals], [t - t // 2 for t in totals])
        return Padding(top, bottom, left, right)
    return symmetric(zero_pair(padding, rank))


def _parameters(at: At, weights: Array, outputs: int) -> list[Value]:
    """Weights, and the bias where there is one."""
    name = at.name_from(at.get("weight", at.get("mat2")))
    values = [at.builder.constant(f"{name}.weight", weights)]
    bias = at.get("bias")
    if bias is not None:
        data = at.array(bias, "bias")
        if data.size not in (1, outputs):
            raise DeployError(f"a bias of shape {data.shape} for {outputs} outputs")
        values.append(at.builder.constant(f"{name}.bias", np.broadcast_to(data.ravel(), (outputs,))))
    return values


def linear(at: At) -> Held:
    """linear: weights [outputs, inputs]."""
    weights = at.array(at.get("weight"), "weight")
    return _fully_connected(at, at.held(at.first()), weights)


def matrix(at: At) -> Held:
    """mm and matmul with a constant on the right: weights [inputs, outputs]."""
    right = at.get("mat2", at.get("other"))
    return _fully_connected(at, at.held(at.first()), at.array(right, "right operand").T)


def addmm(at: At) -> Held:
    """addmm: bias + x @ weights."""
    if at.get("beta", 1) != 1 or at.get("alpha", 1) != 1:
        raise DeployError("addmm with alpha or beta other than 1 is not supported")
    arguments = {**at.call.arguments, "bias": at.get("self"), "weight": at.get("mat2")}
    inner = At(
        type(at.call)(at.call.name, at.call.target, arguments, at.call.outputs, at.call.where), at.builder
    )
    return _fully_connected(inner, at.held(at.get("mat1")), at.array(at.get("mat2"), "right operand").T)


def _fully_connected(at: At, x: Held, weights: Array) -> Held:
    """Over the last axis; columns of the weights follow the order in which the features are held."""
    if weights.ndim != 2 or x.rank < 1 or x.shape[-1] != weights.shape[1]:
        raise DeployError(f"an input of shape {x.shape} and weights of shape {weights.shape}")
    outputs, features = weights.shape
    table = rows_of(x, features)
    if table is None:
        raise DeployError("its input's features do not lie together, and a transposition would be needed")
    rows, columns = table
    keep = x.value.shape[-1] == features and len(x.value.shape) != 2
    if keep and len(rows) == 1:
        keep = False
    value = x.value if keep else at.builder.shaped(x, (len(rows), features))
    order = rows[:, np.newaxis] * outputs + np.arange(outputs)
    op = ops.FullyConnected(keep_dims=keep)
    inputs = [value, *_parameters(at, weights[:, columns], outputs)]
    return at.builder.emit(
        at.name_from(at.get("weight", at.get("mat2"))), op, inputs, (*x.shape[:-1], outputs), order
    )


def batch_norm(at: At) -> Held:
    """In evaluation mode a product and a sum per channel, which a pass folds where it can.

    scale = weight / sqrt(variance + eps); shift = bias - mean * scale.
    """
    x = at.held(at.first())
    if at.get("training", False) is True:
        raise DeployError("a batch norm in training mode", hint="export the module after module.eval()")
    mean = at.array(at.get("running_mean"), "running mean").astype(np.float64)
    variance = at.array(at.get("running_var"), "running variance").astype(np.float64)
    weight, bias = at.get("weight"), at.get("bias")
    scale = 1.0 / np.sqrt(variance + float(at.get("eps", 1e-5)))
    if weight is not None:
        scale = scale * at.array(weight, "weight")
    shift = -mean * scale
    if bias is not None:
        shift = shift + at.array(bias, "bias")
    if x.rank < 2 or scale.shape != (x.shape[1],):
        raise DeployError(f"statistics of shape {scale.shape} for an input of shape {x.shape}")
    along = (1, -1, *(1,) * (x.rank - 2))
    name = at.name_from(weight if weight is not None else at.get("running_mean"))
    scaled = affine(at, ops.Mul(), x, scale.reshape(along), f"{name}.scale")
    if weight is not None:
        gamma = constant_as_held(at.array(weight, "weight").reshape(along), x).ravel()
        if gamma.shape == scaled.value.shape[-1:]:
            at.builder.norm_scales[scaled.value.name] = gamma
    return affine(at, ops.Add(), scaled, shift.reshape(along), f"{name}.shift")


def affine(at: At, op: Op, x: Held, data: Array, name: str) -> Held:
    """ADD or MUL of a tensor and a constant."""
    operand = at.builder.constant(f"{name}.constant", constant_as_held(data, x))
    return at.builder.emit(name, op, [x.value, operand], x.shape, x.order)
