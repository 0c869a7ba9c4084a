"""What moves the parameters, and by how much each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tinydeploy import ops
from tinydeploy.finetune.options import TrainOptions

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from tinydeploy.trainable.module import Trainable

# PyTorch is heavy, and an optional extra.
# ruff: noqa: PLC0415

_LEAST_SIZE = 0.05


def make_optimizer(module: Trainable, options: TrainOptions) -> torch.optim.Optimizer:
    """One group a tensor, with its own `size`: what the learning rate is to be multiplied by.

    Adam moves every element by about the learning rate, whatever its size. A network whose batch norms are
    folded, or whose input is 0 to 255, has tensors of very different size, so the step is taken relative to
    the root mean square of each (Shazeer and Stern 2018, "Adafactor", section 8); with Muon that of a
    convolution's weights relative to their length. Weights decay; biases, ranges and other vectors do not.
    """
    import torch

    named = {name: p for name, p in module.named_parameters() if p.requires_grad}
    groups = {name: _group(name, p, module, options) for name, p in named.items()}
    if options.optimizer == "sgd":
        momentum = options.momentum
        return torch.optim.SGD(groups.values(), options.learning_rate, momentum, nesterov=momentum > 0)
    if options.optimizer == "adam":
        return torch.optim.AdamW(groups.values(), options.learning_rate)
    from tinydeploy.finetune.muon import Muon

    for name, normalized in _matrices(module).items():
        if name not in named:
            continue
        p = named[name]
        size = float(p.detach().double().norm()) or _LEAST_SIZE * p.numel() ** 0.5
        length = size if normalized else None
        groups[name].update(size=module.pace(name) * size, orthogonal=True, length=length)
    return Muon(list(groups.values()), options.learning_rate)


def _group(name: str, p: Tensor, module: Trainable, options: TrainOptions) -> dict[str, Any]:
    size = 1.0 if options.optimizer == "sgd" else _root_mean_square(p)
    decay = options.weight_decay if p.ndim > 1 else 0.0
    return {"params": [p], "weight_decay": decay, "size": module.pace(name) * size}


def _matrices(module: Trainable) -> dict[str, bool]:
    """Parameters whose outputs all see the same inputs, the last layer's not among them; and whether their
    length does not matter, because a batch normalization follows.

    A depthwise filter is a small vector of its own, and what makes logits has one row a class: both are left
    to Adam, as Muon's authors leave a network's first and last layer.
    """
    graph = module.graph
    names = {id(p): name for name, p in module.named_parameters()}
    logits = module.logits_name()[0]
    matrices: dict[str, bool] = {}
    for node in graph.nodes:
        if not isinstance(node.op, ops.Conv2D | ops.FullyConnected) or node.outputs[0] == logits:
            continue
        weights = str(node.inputs[1])
        if not graph.value(weights).is_constant:
            continue
        # Under simulated integers the length is what the scales were made for.
        normalized = module.simulation is None and module.is_normalized(node.name)
        matrices[names[id(module.weight(weights))]] = normalized
    return matrices


def _root_mean_square(p: Tensor) -> float:
    size = float(p.detach().double().pow(2).mean().sqrt())
    # A tensor of zeros, such as a fresh bias, must be able to move.
    return max(size, _LEAST_SIZE)
