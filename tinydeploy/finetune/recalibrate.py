"""After channels went: the outputs of the layers that stay get back the mean and variance that they had.

What a convolution reads has become less, so its outputs have shifted and shrunk, layer after layer. Giving
each channel its statistics back costs one pass over some samples and no training, and the loss of such a
network tells how it will do after fine-tuning. Source: Li et al. 2020, "EagleEye: Fast Sub-net Evaluation for
Efficient Neural Network Pruning", section 3.3 (adaptive batch normalization), here for networks whose batch
normalizations are folded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from tinydeploy.finetune.loop import check_data
from tinydeploy.finetune.loss import make_loss, prepare_labels
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import Array
from tinydeploy.trainable import make_trainable

if TYPE_CHECKING:
    from tinydeploy.trainable.normalization import Statistics


class StatisticsKeeper:
    """The statistics of a graph, to be given back to the smaller ones made from it.

    Args:
        graph: the whole network.
        x: float32 (samples, *shape of the graph's one input).
        y: labels, as `finetune` takes them.

    Raises:
        DeployError: data that do not fit, or a graph that cannot be trained.
        MissingExtraError: PyTorch is not installed.
    """

    def __init__(self, graph: Graph, x: Array, y: Array, *, loss: str = "auto") -> None:
        trainable = make_trainable(graph)
        check_data(trainable, x, y)
        import torch  # noqa: PLC0415  # heavy, and an optional extra

        outputs = math.prod(graph.value(graph.outputs[0]).shape)
        labels, kind = prepare_labels(y, outputs, loss)
        self._x = torch.from_numpy(np.ascontiguousarray(x, np.float32))
        self._labels, self._judge = torch.from_numpy(labels), make_loss(kind)
        trainable.normalize(self._x)
        self._statistics = trainable.statistics()
        self._outputs = {n.name: n.outputs[0] for n in graph.nodes}

    def __call__(self, smaller: Graph, kept: Mapping[str, Array]) -> tuple[Graph, float]:
        """The smaller graph with the statistics of the whole one, and its loss on the samples.

        Args:
            kept: for each value of the whole graph the indices of the channels that stay.
        """
        trainable = make_trainable(smaller)
        name, factor = trainable.logits_name()
        logits = trainable.normalize(self._x, self._wanted(kept))[name] * factor
        loss = float(self._judge(logits.reshape(len(self._x), -1), self._labels))
        return trainable.to_graph(), loss

    def _wanted(self, kept: Mapping[str, Array]) -> dict[str, Statistics]:
        wanted = {}
        for node, (mean, variance) in self._statistics.items():
            stays = kept[self._outputs[node]]
            wanted[node] = mean[stays], variance[stays]
        return wanted
