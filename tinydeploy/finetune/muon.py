"""Muon: momentum whose direction is made orthogonal, for the weights of convolutions; Adam for the rest.

A gradient of a small network points almost wholly along a few directions of each weight matrix; the nearest
orthogonal matrix moves all of them alike. Source: K. Jordan et al. 2024, "Muon: An optimizer for hidden
layers in neural networks" (kellerjordan.github.io/posts/muon), the iteration and its coefficients included;
N. Higham 2008, "Functions of Matrices", chapter 8, for the iteration of Newton and Schulz itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

MOMENTUM = 0.9
ADAM_SHARE = 0.5
"""Of the learning rate in steps of Adam."""

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_BETAS = (0.9, 0.999)
_EPSILON = 1e-8


class Muon(torch.optim.Optimizer):
    """One parameter a group.

    A group with `orthogonal` has weights (outputs, ...) that are seen as a matrix of as many rows. Its step
    has the length of `lr`, in which the caller counts the weights' own. Where `length` is given, the weights
    are brought back to it after each step: what a batch normalization follows does not depend on it, and
    they would grow with every step, each of which is nearly at right angles to them. All other groups take
    steps of Adam (Kingma and Ba 2015, algorithm 1) with decoupled weight decay.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float) -> None:
        defaults = {"lr": lr, "weight_decay": 0.0, "orthogonal": False, "length": None}
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                p.mul_(1.0 - group["lr"] * group["weight_decay"])
                if group["orthogonal"]:
                    self._orthogonal(p, p.grad, group["lr"], group["length"])
                else:
                    self._adam(p, p.grad, group["lr"] * ADAM_SHARE)

    def _orthogonal(self, p: Tensor, gradient: Tensor, rate: float, length: float | None) -> None:
        state = self.state[p]
        if not state:
            state["momentum"] = torch.zeros_like(p)
        momentum = state["momentum"].mul_(MOMENTUM).add_(gradient)
        # As Nesterov: the gradient counts once more.
        direction = orthogonalized(gradient.add(momentum, alpha=MOMENTUM).reshape(len(p), -1))
        p.add_(direction.reshape(p.shape), alpha=-rate / math.sqrt(min(direction.shape)))
        if length is not None:
            p.mul_(length / p.norm().clamp_min(_EPSILON * length))

    def _adam(self, p: Tensor, gradient: Tensor, rate: float) -> None:
        state = self.state[p]
        if not state:
            state["step"] = torch.zeros(())
            state["mean"], state["square"] = torch.zeros_like(p), torch.zeros_like(p)
        state["step"] += 1
        step = int(state["step"])
        mean = state["mean"].lerp_(gradient, 1.0 - _BETAS[0])
        square = state["square"].mul_(_BETAS[1]).addcmul_(gradient, gradient, value=1.0 - _BETAS[1])
        deviation = (square / (1.0 - _BETAS[1] ** step)).sqrt_().add_(_EPSILON)
        p.addcdiv_(mean, deviation, value=-rate / (1.0 - _BETAS[0] ** step))


def orthogonalized(matrix: Tensor) -> Tensor:
    """About the nearest matrix with orthonormal rows, or columns where these are fewer: U V^T of its SVD.

    Args:
        matrix: (rows, columns), of any scale; zeros stay zeros.

    Returns:
        The same shape; singular values of at least 1/500 of the matrix's length (the root of the sum of its
        squares) become 0.68 to 1.21, smaller ones less.
    """
    a, b, c = _COEFFICIENTS
    wide = matrix.shape[0] <= matrix.shape[1]
    x: Tensor = matrix if wide else matrix.T
    x = x / torch.linalg.vector_norm(x).clamp_min(torch.finfo(x.dtype).tiny)
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x if wide else x.T
