"""Training of the trainable form: seeded, reproducible, resumable from a safetensors checkpoint."""

from tinydeploy.finetune.gradients import batch_gradients, weight_gradients
from tinydeploy.finetune.loop import finetune
from tinydeploy.finetune.options import Epoch, Progress, TrainOptions, TrainProgress, TrainResult

__all__ = [
    "Epoch",
    "Progress",
    "TrainOptions",
    "TrainProgress",
    "TrainResult",
    "batch_gradients",
    "finetune",
    "weight_gradients",
]
