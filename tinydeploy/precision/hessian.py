"""The trace of the loss's Hessian for each layer's weights and for activations, by Hutchinson's estimator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tinydeploy.finetune.loop import check_data
from tinydeploy.finetune.loss import make_loss, prepare_labels
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import Array
from tinydeploy.quantize.recipe import linear_nodes
from tinydeploy.trainable import make_trainable, require_torch

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from tinydeploy.trainable.module import Trainable


def hessian_traces(graph: Graph, x: Array, y: Array, *, vectors: int = 8, seed: int = 0) -> dict[str, float]:
    """The trace of each layer's weights by its name, divided by the number of its weights.

    `E[v^T H v]` for random signs v is the trace of H; one product H v is a second pass of gradients. A layer
    with a large mean trace has a sharp minimum and is the last to be given fewer bits. Gradients pass the
    kinks of ReLU as if they were straight.

    Sources: M. F. Hutchinson, "A stochastic estimator of the trace of the influence matrix" (1990); Z. Dong
    et al., "HAWQ-V2: Hessian Aware trace-Weighted Quantization of Neural Networks" (NeurIPS 2020), section 3.

    Args:
        x: float32 (samples, *shape of the graph's one input).
        y: labels, as `finetune` takes them.
        vectors: random vectors a layer; the error falls with their square root.

    Raises:
        DeployError: data that do not fit, or a graph that cannot be trained.
        MissingExtraError: PyTorch is not installed.
    """
    require_torch("the trace of the Hessian")
    module = make_trainable(graph).eval()
    loss, _ = _loss(module, x, y)
    layers = linear_nodes(graph)
    found = _traces(loss, [module.weight(str(node.inputs[1])) for node in layers], vectors, seed)
    return {node.name: trace for node, trace in zip(layers, found, strict=True)}


def activation_traces(
    graph: Graph, x: Array, y: Array, names: Sequence[str], *, vectors: int = 8, seed: int = 0
) -> dict[str, float]:
    """Like `hessian_traces`, for activations by name: the mean over samples, divided by a sample's elements.

    What one sample's activations do to the loss of another is nothing, so one random vector serves a whole
    batch. Source: Z. Dong et al., "HAWQ-V2" (NeurIPS 2020), section 3.3.
    """
    require_torch("the trace of the Hessian")
    module = make_trainable(graph).eval()
    loss, values = _loss(module, x, y)
    found = _traces(loss, [values[name] for name in names], vectors, seed)
    # The loss is a mean over samples, so the sum over them is the mean of each one's own trace.
    return {name: trace * len(x) for name, trace in zip(names, found, strict=True)}


def _loss(module: Trainable, x: Array, y: Array) -> tuple[Tensor, dict[str, Tensor]]:
    """The mean loss of the samples, and every activation by name."""
    import torch  # noqa: PLC0415  # heavy, and an optional extra

    check_data(module, x, y)
    outputs = module.graph.value(module.graph.outputs[0]).elements
    labels, kind = prepare_labels(y, outputs, "auto")
    logits, factor = module.logits_name()
    values = module.values(torch.tensor(x))
    z = (values[logits] * factor).reshape(len(x), -1)
    return make_loss(kind)(z, torch.from_numpy(labels)), values


def _traces(loss: Tensor, tensors: Sequence[Tensor], vectors: int, seed: int) -> list[float]:
    """The trace for each tensor, divided by the number of its elements."""
    import torch  # noqa: PLC0415

    # What the loss does not depend on has no gradient at all.
    gradients = torch.autograd.grad(loss, tensors, create_graph=True, allow_unused=True)
    generator = torch.Generator().manual_seed(seed)
    return [
        0.0
        if gradient is None
        else sum(_product(x, gradient, generator) for _ in range(vectors)) / (vectors * x.numel())
        for x, gradient in zip(tensors, gradients, strict=True)
    ]


def _product(x: Tensor, gradient: Tensor, generator: Generator) -> float:
    """`v^T H v` for one vector of random signs."""
    import torch  # noqa: PLC0415

    signs = torch.randint(0, 2, x.shape, generator=generator).to(x.dtype) * 2 - 1
    # A loss that is linear in x has no second derivative.
    if not gradient.requires_grad:
        return 0.0
    (product,) = torch.autograd.grad(gradient, x, signs, retain_graph=True, allow_unused=True)
    return 0.0 if product is None else float((signs * product).sum())
