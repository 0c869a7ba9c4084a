"""What a teacher adds to the loss: what it says about a batch, and what it sees on the way there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinydeploy.errors import DeployError
from tinydeploy.finetune.loss import distillation
from tinydeploy.finetune.options import TrainOptions
from tinydeploy.ir.graph import Graph
from tinydeploy.prune.residual import residual_sums
from tinydeploy.trainable import make_trainable

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import Tensor

STAGES = 2
"""How many stages give features, from the end; the larger maps before them cost more than they teach."""


class Teacher:
    """A float graph that answers the same batches.

    Args:
        graph: what teaches.
        student: what learns; its activations have the names of the teacher's.

    Attributes:
        features: names of the activations that are compared; empty without `feature_weight`.

    Raises:
        DeployError: features are wanted and the two have none of one shape.
    """

    def __init__(self, graph: Graph, student: Graph, options: TrainOptions) -> None:
        self.options = options
        self.module = make_trainable(graph).eval()
        self.logits = self.module.logits_name()
        self.features = shared_features(graph, student) if options.feature_weight else ()
        if options.feature_weight and not self.features:
            raise DeployError(
                "has no sum of a residual block with all its channels, so no feature has the teacher's shape",
                where=student.source,
                hint="--protect-residual keeps them; without residual blocks leave --distill-features out",
            )

    def answer(self, x: Tensor) -> Mapping[str, Tensor]:
        """Its activations by name for a batch (samples, *shape of the input), without gradients."""
        import torch  # noqa: PLC0415  # heavy, and an optional extra

        with torch.no_grad():
            return self.module.values(x)

    def joined(
        self, loss: Tensor, z: Tensor, seen: Mapping[str, Tensor], answer: Mapping[str, Tensor]
    ) -> Tensor:
        """The loss by the labels, joined by what the teacher thinks of the batch.

        Args:
            loss: by the labels, a scalar.
            z: the student's logits (samples, outputs), float32.
            seen: the student's activations by name.
            answer: the teacher's.
        """
        name, factor = self.logits
        wanted = (answer[name] * factor).reshape(len(z), -1).float()
        share = self.options.distill_weight
        joined = (1.0 - share) * loss + share * distillation(z, wanted, self.options)
        for feature in self.features:
            distance = relative_distance(seen[feature].float(), answer[feature].float())
            joined = joined + self.options.feature_weight / len(self.features) * distance
        return joined

    def to(self, device: torch.device) -> None:
        self.module.to(device)


def shared_features(teacher: Graph, student: Graph) -> tuple[str, ...]:
    """The last sum of residual blocks at each resolution, of the last STAGES, that pruning left whole.

    There the student's channels mean what the teacher's do, since pruning kept them all.
    """
    found: dict[tuple[int, ...], str] = {}
    for node in residual_sums(student):
        name = node.outputs[0]
        shape = student.value(name).shape
        if name in teacher.values and teacher.value(name).shape == shape:
            found.pop(shape[:-1], None)
            found[shape[:-1]] = name
    return tuple(found.values())[-STAGES:]


def relative_distance(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared difference, by the mean square of `b`: 1 for what knows nothing of it.

    Source: Romero et al. 2015, "FitNets: Hints for thin deep nets", equation 3, without its regressor.
    """
    from torch.nn import functional  # noqa: PLC0415

    return functional.mse_loss(a, b) / b.square().mean().clamp_min(1e-12)
