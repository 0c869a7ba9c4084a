"""What training is asked for, and what it tells while it runs and at its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from tinydeploy.errors import DeployError
from tinydeploy.ir.graph import Graph

Precision = Literal["float32", "bfloat16"]
Optimizer = Literal["adam", "muon", "sgd"]
LEARNING_RATES: Mapping[Optimizer, float] = {"adam": 2e-2, "muon": 1e-2, "sgd": 3e-3}
"""Where nobody says one."""


@dataclass(frozen=True)
class TrainOptions:
    """How to train.

    Attributes:
        epochs: passes over the data; 0 trains nothing.
        learning_rate: at the start; `schedule` says how it goes on. Adam and Muon take it relative to the
            size of each tensor, SGD as it is.
        schedule: `cosine` falls to 0 over all steps, `constant` stays.
        seed: of the order of samples and of the augmentation.
        loss: `cross_entropy` for class numbers, `mse` for values, `auto` chooses by the labels, and
            `package.module:function` is called as function(outputs, labels) and returns a scalar tensor.
        optimizer: `adam` (weight decay decoupled), `sgd` with momentum, or `muon`, which orthogonalizes the
            steps of weight matrices and takes those of Adam for the rest.
        weight_decay: on weights, never on biases and ranges.
        clip_norm: largest norm of all gradients together; None leaves them.
        distill_from: a float graph whose outputs are imitated (KL divergence), or None.
        temperature: of the distillation.
        distill_weight: its share of the loss, in [0, 1].
        feature_weight: of the distance between its residual sums and those of `distill_from`; 0 compares
            none.
        augment: `package.module:function`, called as function(x, generator) with x of shape
            (samples, *shape of the input value), NHWC; returns as much.
        batch_norm: normalize over the batch behind each convolution while training, and fold that away at
            the end; for networks whose own batch normalizations are folded.
        precision: `bfloat16` multiplies in that (weights and sums stay float32); about twice as fast on a
            processor that has it.
        checkpoint: a .safetensors file, written after each epoch; where it exists, training goes on from it.
        device: `auto` takes a GPU where there is one.
    """

    epochs: int = 10
    batch_size: int = 32
    learning_rate: float = LEARNING_RATES["adam"]
    schedule: Literal["cosine", "constant"] = "cosine"
    seed: int = 0
    loss: str = "auto"
    optimizer: Optimizer = "adam"
    momentum: float = 0.9
    weight_decay: float = 0.0
    clip_norm: float | None = None
    distill_from: Graph | None = None
    temperature: float = 4.0
    distill_weight: float = 0.5
    feature_weight: float = 0.0
    augment: str | None = None
    batch_norm: bool = True
    precision: Precision = "float32"
    checkpoint: Path | None = None
    device: str = "auto"

    def check(self) -> None:
        """Raises DeployError for options that make no sense."""
        limits = (
            (self.epochs >= 0, f"{self.epochs} epochs"),
            (self.batch_size >= 1, f"batches of {self.batch_size}"),
            (0.0 < self.learning_rate < float("inf"), f"a learning rate of {self.learning_rate}"),
            (self.schedule in ("cosine", "constant"), f"the schedule {self.schedule!r}"),
            (self.optimizer in get_args(Optimizer), f"the optimizer {self.optimizer!r}"),
            (self.precision in ("float32", "bfloat16"), f"the precision {self.precision!r}"),
            (self.weight_decay >= 0.0, f"a weight decay of {self.weight_decay}"),
            (self.clip_norm is None or self.clip_norm > 0.0, f"a gradient norm of {self.clip_norm}"),
            (self.temperature > 0.0, f"a temperature of {self.temperature}"),
            (0.0 <= self.distill_weight <= 1.0, f"a distillation weight of {self.distill_weight}"),
            (0.0 <= self.feature_weight < float("inf"), f"a weight of features of {self.feature_weight}"),
        )
        for fits, what in limits:
            if not fits:
                raise DeployError(f"cannot train with {what}", where="training options")


@dataclass(frozen=True)
class TrainProgress:
    """Where training stands.

    Attributes:
        epoch, step: the current ones, from 1.
        loss: mean over the epoch so far.
        accuracy: fraction of the epoch's training samples so far; None where labels are no classes.
        seconds_left: estimated from the steps done in this run.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    accuracy: float | None
    seconds_left: float


Progress = Callable[[TrainProgress], None]


@dataclass(frozen=True)
class Epoch:
    """One epoch's mean loss and accuracy on the training samples, as they were augmented."""

    loss: float
    accuracy: float | None


@dataclass(frozen=True)
class TrainResult:
    """What training did.

    Attributes:
        epochs: one entry an epoch, those from a checkpoint included.
        resumed: how many epochs came from the checkpoint.
        device: where it ran.
    """

    epochs: tuple[Epoch, ...]
    resumed: int
    device: str
