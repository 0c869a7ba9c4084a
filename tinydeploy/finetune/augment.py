"""Augmentations to name as hooks: `tinydeploy.finetune.augment:flip`, the stronger `:flip_and_shift`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Generator, Tensor


def flip(x: Tensor, generator: Generator) -> Tensor:
    """Mirrors each image left to right with probability 1/2.

    Args:
        x: images (samples, 1, H, W, C).

    Returns:
        As many, of the same shape.
    """
    import torch  # noqa: PLC0415  # heavy, and an optional extra

    mirrored = torch.randint(0, 2, (len(x), 1, 1, 1, 1), generator=generator).bool()
    return torch.where(mirrored, x.flip(3), x)


def flip_and_shift(x: Tensor, generator: Generator) -> Tensor:
    """Mirrors each image left to right with probability 1/2 and moves it by up to an eighth of its size.

    What moves in from outside repeats the image's edge, so that no value appears that the image lacks.

    Args:
        x: images (samples, 1, H, W, C).

    Returns:
        As many, of the same shape.
    """
    import torch  # noqa: PLC0415  # heavy, and an optional extra

    samples, _, height, width, _ = x.shape
    flip = torch.randint(0, 2, (samples, 1), generator=generator).bool()
    places = []
    for size in (height, width):
        reach = size // 8
        offset = torch.randint(-reach, reach + 1, (samples, 1), generator=generator)
        places.append((torch.arange(size) + offset).clamp(0, size - 1))
    rows, columns = places
    columns = torch.where(flip, columns.flip(1), columns)
    image = torch.arange(samples)[:, None, None]
    moved: Tensor = x[:, 0][image, rows[:, :, None], columns[:, None, :]]
    return moved[:, None]
