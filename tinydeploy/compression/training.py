"""The trainings of `compress`: fine-tuning, quantization-aware training, recalibration, on the same data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tinydeploy.data import Samples
from tinydeploy.errors import DeployError
from tinydeploy.finetune import TrainOptions
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import Array
from tinydeploy.measure import Progress
from tinydeploy.quantize.qat_options import QatOptions
from tinydeploy.quantize.recipe import INT8_RECIPE, Recipe

if TYPE_CHECKING:
    from tinydeploy.finetune.options import TrainProgress
    from tinydeploy.finetune.recalibrate import StatisticsKeeper

# Imports of what needs PyTorch wait until something is trained.
# ruff: noqa: PLC0415


@dataclass(frozen=True)
class Trainer:
    """Data and options that all trainings of one compression share.

    Attributes:
        options: its epochs are ignored.
        distill: whether a teacher is listened to.
    """

    samples: Samples
    options: TrainOptions
    distill: bool
    progress: Progress

    def finetune(
        self, graph: Graph, epochs: int, *, teacher: Graph | None = None, checkpoint: str | None = None
    ) -> Graph:
        """The float graph after so many epochs; itself after none.

        Args:
            checkpoint: the stage's own name in the file's, "" for none; None writes no checkpoint.

        Raises:
            DeployError: no labels, or several inputs.
        """
        from tinydeploy.finetune import finetune
        from tinydeploy.trainable import make_trainable

        if not epochs:
            return graph
        trainable = make_trainable(graph)
        options = replace(
            self.options,
            epochs=epochs,
            distill_from=teacher if self.distill else None,
            checkpoint=None if checkpoint is None else self._checkpoint(checkpoint),
        )
        x, y = self._data()
        finetune(trainable, x, y, options, training_progress("training", self.progress))
        return trainable.to_graph()

    def quantization_aware(
        self,
        graph: Graph,
        epochs: int,
        calibration: tuple[list[Array], str],
        how: QatOptions,
        rate: float,
        teacher: Graph | None,
        recipe: Recipe = INT8_RECIPE,
    ) -> tuple[Graph, Graph]:
        """The integer graph and the float graph that it comes from.

        Args:
            calibration: samples and the name of the calibrator: where the ranges start.
            how: what learns and how.
            rate: the learning rate.
            recipe: which layer is quantized how.
        """
        from tinydeploy.finetune import finetune
        from tinydeploy.quantize.qat import make_quantized_trainable

        trainable = make_quantized_trainable(graph, *calibration, how, recipe)
        options = replace(
            self.options,
            epochs=epochs,
            learning_rate=rate,
            # What is learned about integers are steps and ranges; Muon is for weights that are free to move.
            optimizer="adam" if self.options.optimizer == "muon" else self.options.optimizer,
            # Eight bits of mantissa would round what int8 is compared with.
            precision="float32",
            distill_from=teacher if self.distill else None,
            checkpoint=self._checkpoint("qat"),
        )
        x, y = self._data()
        finetune(trainable, x, y, options, training_progress("quantization-aware training", self.progress))
        return trainable.to_quantized_graph(), trainable.to_graph()

    def recalibration(self, count: int) -> Callable[[Graph], StatisticsKeeper]:
        """Makes the recalibration of a graph by `count` samples that the seed chooses."""
        x, y = self._data()
        chosen = np.random.default_rng(self.options.seed).permutation(len(y))
        chosen = np.sort(chosen[:count])

        def make(graph: Graph) -> StatisticsKeeper:
            from tinydeploy.finetune.recalibrate import StatisticsKeeper

            return StatisticsKeeper(graph, x[chosen], y[chosen], loss=self.options.loss)

        return make

    def _data(self) -> tuple[Array, Array]:
        if len(self.samples.inputs) != 1 or self.samples.labels is None:
            raise DeployError(
                "training needs a model with one input, and labels",
                where="--data",
                hint="add an array y to the .npz file, or leave out the epochs",
            )
        return self.samples.inputs[0], self.samples.labels

    def _checkpoint(self, stage: str) -> Path | None:
        """A stage's own file beside that of fine-tuning: `run.qat.safetensors` beside `run.safetensors`."""
        path = self.options.checkpoint
        return path if path is None or not stage else path.with_suffix(f".{stage}{path.suffix}")


def training_progress(what: str, progress: Progress) -> Callable[[TrainProgress], None]:
    """Shows epoch, loss, accuracy and time left as one Progress."""

    def report(p: TrainProgress) -> None:
        shown = "" if p.accuracy is None else f", accuracy {p.accuracy:.1%}"
        progress(
            f"{what}: epoch {p.epoch} of {p.epochs}, loss {p.loss:.3f}{shown}",
            (p.epoch - 1) * p.steps + p.step,
            p.epochs * p.steps,
        )

    return report
