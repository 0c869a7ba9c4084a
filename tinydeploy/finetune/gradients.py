"""Gradients of the loss with respect to the weights of a graph, for importance measures."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from tinydeploy.finetune.loop import check_data
from tinydeploy.finetune.loss import make_loss, prepare_labels
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import Array
from tinydeploy.trainable import make_trainable


def batch_gradients(
    graph: Graph, x: Array, y: Array, *, loss: str = "auto", batch_size: int = 64
) -> Iterator[dict[str, Array]]:
    """For each batch the mean over its samples of d loss / d constant, for each float constant by name.

    Args:
        x: float32 (samples, *shape of the graph's one input).
        y: labels, as `finetune` takes them.

    Yields:
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
        trainable.zero_grad(set_to_none=True)
        torch.autograd.backward(judge(outputs, torch.from_numpy(labels[start : start + batch_size])))
        found: dict[str, Array] = {}
        for value in graph.constants():
            if value.dtype.is_float:
                gradient = trainable.weight(value.name).grad
                found[value.name] = (
                    np.zeros(value.shape, np.float32) if gradient is None else gradient.numpy()
                )
        yield found


def weight_gradients(
    graph: Graph, x: Array, y: Array, *, loss: str = "auto", batch_size: int = 64
) -> dict[str, Array]:
    """The mean over all samples of d loss / d constant; arguments and errors as in `batch_gradients`."""
    result: dict[str, Array] = {}
    batches = batch_gradients(graph, x, y, loss=loss, batch_size=batch_size)
    for start, batch in zip(range(0, len(x), batch_size), batches, strict=True):
        share = np.float32(min(batch_size, len(x) - start) / len(x))
        for name, gradient in batch.items():
            result[name] = result.get(name, np.float32(0)) + gradient * share
    return result
