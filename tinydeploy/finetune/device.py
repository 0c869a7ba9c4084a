"""Where training runs, and in what precision it multiplies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinydeploy.finetune.options import TrainOptions

if TYPE_CHECKING:
    import torch


def find_device(name: str) -> torch.device:
    """The device of that name; `auto` is a GPU where there is one."""
    import torch  # noqa: PLC0415  # heavy, and an optional extra

    if name != "auto":
        return torch.device(name)
    if not torch.cuda.is_available():
        return torch.device("cpu")
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    return torch.device("cuda")


def products_in(options: TrainOptions, device: torch.device) -> torch.autocast:
    """A context in which products have the precision that is asked for."""
    import torch  # noqa: PLC0415

    return torch.autocast(device.type, torch.bfloat16, enabled=options.precision == "bfloat16")
