"""Graph <-> torch.nn.Module: fine-tuning, quantization-aware training and sensitivity.

Importing this package costs nothing; PyTorch is loaded by `make_trainable`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinydeploy.errors import MissingExtraError

if TYPE_CHECKING:
    from tinydeploy.ir.graph import Graph
    from tinydeploy.trainable.module import Trainable


def require_torch(purpose: str) -> None:
    """Raises MissingExtraError where PyTorch is not installed."""
    try:
        import torch  # noqa: F401, PLC0415  # heavy, and an optional extra
    except ImportError:
        raise MissingExtraError("torch", "train", purpose) from None


def make_trainable(graph: Graph) -> Trainable:
    """The trainable form of a float graph.

    Raises:
        DeployError: the graph is not float, or holds an op that has no trainable form.
        MissingExtraError: PyTorch is not installed.
    """
    require_torch("training")
    from tinydeploy.trainable.module import Trainable  # noqa: PLC0415

    return Trainable(graph)


__all__ = ["make_trainable", "require_torch"]
