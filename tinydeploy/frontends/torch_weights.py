"""Weights for a module of the user's own, from files that are not trusted."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinydeploy.errors import DeployError, MissingExtraError

if TYPE_CHECKING:
    import torch


def load_weights(module: torch.nn.Module, path: Path) -> None:
    """Loads a `.safetensors` file, or a `.pt` state dict without unpickling objects, into a module.

    Raises:
        DeployError: the file cannot be read, holds other things than tensors, or does not fit the module.
    """
    state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_state_dict(path)
    try:
        module.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        text = " ".join(str(error).split())[:500]
        raise DeployError(f"does not fit the module: {text}", where=str(path)) from None


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        from safetensors import SafetensorError  # noqa: PLC0415  # an optional extra
        from safetensors.torch import load_file  # noqa: PLC0415
    except ImportError:
        raise MissingExtraError("safetensors", "train", "reading weights") from None
    try:
        return dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise DeployError(f"is not a readable .safetensors file ({error})", where=str(path)) from None


def _read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """`weights_only` restricts the unpickler to tensors and plain containers; it calls nothing else."""
    torch = need_torch()
    hint = "save weights with safetensors.torch.save_file(module.state_dict(), FILE)"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (
        pickle.UnpicklingError,
        zipfile.BadZipFile,
        RuntimeError,
        OSError,
        EOFError,
        ValueError,
        KeyError,
    ) as error:
        raise DeployError(
            f"is no state dict of plain tensors, and nothing else is ever loaded ({first_line(error)})",
            where=str(path),
            hint=hint,
        ) from None
    if not isinstance(state, Mapping) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise DeployError("holds something other than a state dict of tensors", where=str(path), hint=hint)
    return dict(state)


def need_torch() -> Any:
    """PyTorch, or MissingExtraError."""
    try:
        import torch  # noqa: PLC0415  # heavy, and an optional extra
    except ImportError:
        raise MissingExtraError("torch", "train", "reading a PyTorch module") from None
    return torch


def first_line(error: Exception) -> str:
    """What an exception says, without the pages that PyTorch adds."""
    return next(iter(str(error).strip().splitlines()), "")[:300]
