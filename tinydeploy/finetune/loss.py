"""The loss of a task: chosen by the labels, or the user's own; with distillation on top."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from tinydeploy.errors import DeployError
from tinydeploy.finetune.options import TrainOptions
from tinydeploy.hooks import load_hook
from tinydeploy.ir.types import Array

if TYPE_CHECKING:
    from torch import Tensor

LossFunction = Callable[["Tensor", "Tensor"], "Tensor"]


def prepare_labels(y: Array, outputs: int, kind: str) -> tuple[Array, str]:
    """Labels as training takes them, and the loss that `kind` comes to.

    Args:
        y: class numbers (samples,) or (samples, 1), or values (samples, ...) of `outputs` elements each;
            one-hot rows are class numbers.
        kind: `auto`, `cross_entropy`, `mse`, or the name of a hook.

    Returns:
        int64 class numbers (samples,), or float32 values (samples, outputs); and `cross_entropy`, `binary`,
        `mse` or the hook's name.
    """
    flat = y.reshape(len(y), -1)
    classes = flat[:, 0] if flat.shape[1] == 1 and flat.dtype.kind in "iub" else None
    if classes is None and flat.shape[1] == outputs > 1 and np.isin(flat, (0, 1)).all():
        hot = flat.sum(axis=1) == 1
        classes = flat.argmax(axis=1) if hot.all() else None
    if kind == "mse":
        classes = None
    if classes is not None:
        top = max(outputs, 2)
        if classes.min() < 0 or classes.max() >= top:
            raise DeployError(
                f"the labels reach from {classes.min()} to {classes.max()} for {top} classes", where="y"
            )
        chosen = "binary" if outputs == 1 else "cross_entropy"
        return classes.astype(np.int64), chosen if kind in ("auto", "cross_entropy") else kind
    if kind == "cross_entropy":
        raise DeployError(
            "cross-entropy needs class numbers", where="y", hint="one integer a sample, or --loss mse"
        )
    if flat.shape[1] != outputs and ":" not in kind:
        raise DeployError(
            f"y has {flat.shape[1]} values a sample, and the model has {outputs} outputs",
            where="y",
            hint="y holds one class number a sample, or values of the output's shape",
        )
    return flat.astype(np.float32), "mse" if kind == "auto" else kind


def make_loss(kind: str) -> LossFunction:
    """The loss of outputs (samples, outputs) and labels; classes are judged by logits.

    Raises:
        DeployError: an unknown name, or a hook that cannot be imported.
    """
    from torch.nn import functional  # noqa: PLC0415  # heavy, and an optional extra

    if kind == "cross_entropy":
        return functional.cross_entropy
    if kind == "mse":
        return functional.mse_loss
    if kind == "binary":
        return lambda z, y: functional.binary_cross_entropy_with_logits(z[:, 0], y.to(z.dtype))
    if ":" not in kind:
        raise DeployError(
            f"there is no loss {kind!r}",
            where="--loss",
            hint="auto, cross_entropy, mse, or package.module:function",
        )
    hook = load_hook(kind, "the loss")

    def call(z: Tensor, y: Tensor) -> Tensor:
        value: Tensor = hook(z, y)
        if getattr(value, "ndim", None) != 0 or not value.requires_grad:
            raise DeployError("must return a scalar tensor that depends on the outputs", where=kind)
        return value

    return call


def distillation(student: Tensor, teacher: Tensor, options: TrainOptions) -> Tensor:
    """T^2 KL(teacher / T || student / T), mean over samples.

    Source: Hinton, Vinyals, Dean, "Distilling the knowledge in a neural network" (2015), section 2: the
    factor T^2 keeps the size of the gradients when T changes.
    """
    from torch.nn import functional  # noqa: PLC0415

    t = options.temperature
    log_student = functional.log_softmax(student / t, dim=1)
    log_teacher = functional.log_softmax(teacher / t, dim=1)
    return functional.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True) * (t * t)
