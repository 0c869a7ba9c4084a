"""Gradients of the loss with respect to the weights of a graph, for importance measures."""

from __future__ import annotations

import math

import numpy as np

from tinydeploy.finetune.loop import check_data
from tinydeploy.finetune.loss import make_loss, prepare_labels
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import Array
from tinydeploy.trainable import make_trainable


def weight_gradients(
    graph: Graph, x: Array, y: Array, *, loss: str = "auto", batch_size: int = 64
) -> dict[str, Array]:
    """The mean over samples of d loss / d constant, for each float constant by name.

    Args:
        x: float32 (samples, *shape of the graph's one input).
        y: labels, as `finetune` takes them.

    Returns:
        float32 arrays of the constants' own shapes.

    Raises:
        DeployError: data that do not fit, or a graph that cannot be trained.
        MissingExtraError: PyTorch is not installed.
    """
    trainable = make_trainable(graph)
    check_data(trainable, x, y)
    labels, kind = prepare_labels(y, math.prod(graph.value(graph.outputs[0]).shape), loss)
    import torch  # noqa: PLC0415  # heavy, and an optional extra

    judge = make_loss(kind)
    for start in range(0, len(x), batch_size):
        part = torch.from_numpy(np.ascontiguousarray(x[start : start + batch_size], np.float32))
        outputs = trainable.logits(part).reshape(len(part), -1)
        share = len(part) / len(x)
        torch.autograd.backward(judge(outputs, torch.from_numpy(labels[start : start + batch_size])) * share)
    result: dict[str, Array] = {}
    for value in graph.constants():
        if value.dtype.is_float:
            gradient = trainable.weight(value.name).grad
            result[value.name] = np.zeros(value.shape, np.float32) if gradient is None else gradient.numpy()
    return result
