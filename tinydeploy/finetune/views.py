"""What a teacher says about a sample when it has seen it in many ways.

One augmented view of a sample may hide what the next one shows: the mean over views is right more often than
the answer for any of them, and costs one pass a view before training, not one a step.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from tinydeploy.finetune.device import find_device, products_in
from tinydeploy.finetune.loss import softened
from tinydeploy.hooks import load_hook
from tinydeploy.trainable import make_trainable

if TYPE_CHECKING:
    from collections.abc import Callable

    from tinydeploy.finetune.options import TrainOptions
    from tinydeploy.ir.graph import Graph
    from tinydeploy.ir.types import Array

_SEED = 1_000_000_007
"""Apart from the seeds of epochs, so that no view is one that training shows."""


def mean_answers(
    teacher: Graph, x: Array, options: TrainOptions, progress: Callable[[int, int], None] | None = None
) -> Array:
    """The mean of the teacher's softened probabilities over `options.distill_views` views of each sample.

    Args:
        x: float32 (samples, *shape of the input), NHWC.
        options: with an augmentation, of which each view is one draw.
        progress: called with the batches done and all of them.

    Returns:
        float32 (samples, outputs); each row sums to 1.

    Raises:
        DeployError: an augmentation that cannot be imported.
    """
    import torch  # noqa: PLC0415  # heavy, and an optional extra

    assert options.augment is not None
    augment, device = load_hook(options.augment, "the augmentation"), find_device(options.device)
    module = make_trainable(teacher).eval().to(device)
    name, factor = module.logits_name()
    x = np.require(x, np.float32, ["C", "W"])
    starts = range(0, len(x), options.batch_size)
    sums = torch.zeros(len(x), math.prod(teacher.value(teacher.outputs[0]).shape))
    with torch.random.fork_rng(devices=[]):
        for view in range(options.distill_views):
            torch.manual_seed(options.seed * _SEED + view)
            generator = torch.Generator().manual_seed(options.seed * _SEED + view)
            for index, start in enumerate(starts):
                seen = augment(torch.from_numpy(x[start : start + options.batch_size]), generator)
                with torch.no_grad(), products_in(options, device):
                    answer = module.values(seen.to(device))[name] * factor
                z = answer.reshape(len(seen), -1).float().cpu()
                sums[start : start + len(seen)] += softened(z, options).exp()
                if progress is not None:
                    progress(view * len(starts) + index + 1, options.distill_views * len(starts))
    means: Array = (sums / options.distill_views).numpy()
    return means
