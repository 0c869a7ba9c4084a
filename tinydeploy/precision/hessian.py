"""The trace of the Hessian of the loss for each layer's weights, by Hutchinson's estimator."""

from __future__ import annotations

from tinydeploy.finetune.loop import check_data
from tinydeploy.finetune.loss import make_loss, prepare_labels
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import Array
from tinydeploy.quantize.recipe import linear_nodes
from tinydeploy.trainable import make_trainable, require_torch


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
    import torch  # noqa: PLC0415  # heavy, and an optional extra

    module = make_trainable(graph).eval()
    check_data(module, x, y)
    outputs = graph.value(graph.outputs[0]).elements
    labels, kind = prepare_labels(y, outputs, "auto")
    z = module.logits(torch.tensor(x)).reshape(len(x), -1)
    loss = make_loss(kind)(z, torch.from_numpy(labels))
    layers = linear_nodes(graph)
    weights = [module.weight(str(node.inputs[1])) for node in layers]
    gradients = torch.autograd.grad(loss, weights, create_graph=True)
    generator = torch.Generator().manual_seed(seed)
    traces = {}
    for node, weight, gradient in zip(layers, weights, gradients, strict=True):
        total = 0.0
        for _ in range(vectors):
            signs = torch.randint(0, 2, weight.shape, generator=generator).to(weight.dtype) * 2 - 1
            # A loss that is linear in these weights has no second derivative.
            (product,) = torch.autograd.grad(gradient, weight, signs, retain_graph=True, allow_unused=True)
            total += 0.0 if product is None else float((signs * product).sum())
        traces[node.name] = total / (vectors * weight.numel())
    return traces
