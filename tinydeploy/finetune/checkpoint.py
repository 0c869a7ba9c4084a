"""Checkpoints: parameters, optimizer state and history in one safetensors file, which holds no code."""

from __future__ import annotations

import dataclasses
import json
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from tinydeploy.errors import DeployError, MissingExtraError
from tinydeploy.finetune.options import Epoch, TrainOptions
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import Array

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

_HINT = "name another file, or remove this one to start again"


def fingerprint(module: nn.Module, x: Array, y: Array, options: TrainOptions) -> str:
    """What a run is: its options, its data and where it starts from. Another run's checkpoint differs."""
    said = {
        f.name: getattr(options, f.name)
        for f in dataclasses.fields(options)
        if f.name not in ("checkpoint", "device", "distill_from")
    }
    parts = [json.dumps(said, sort_keys=True), _crc(x), _crc(y)]
    parts += [f"{name} {_crc(p.detach().cpu().numpy())}" for name, p in module.state_dict().items()]
    if options.distill_from is not None:
        parts += [_graph(options.distill_from)]
    return f"{zlib.crc32(chr(10).join(parts).encode()):08x}"


def _crc(x: Array) -> str:
    return f"{x.dtype}{list(x.shape)}{zlib.crc32(x.tobytes()):08x}"


def _graph(graph: Graph) -> str:
    return " ".join(f"{v.name} {_crc(v.array)}" for v in graph.constants())


def save(
    path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, history: list[Epoch], mark: str
) -> None:
    """Writes beside the file first, so that a stop in between leaves the last one whole."""
    try:
        from safetensors.torch import save_file  # noqa: PLC0415  # an optional extra
    except ImportError:
        raise MissingExtraError("safetensors", "train", "writing a checkpoint") from None
    tensors = {f"model/{k}": v.detach().cpu().clone().contiguous() for k, v in module.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            tensors[f"optimizer/{index}/{key}"] = _tensor(value)
    epochs = json.dumps([dataclasses.astuple(e) for e in history])
    staging = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, staging, {"fingerprint": mark, "epochs": epochs})
        staging.replace(path)
    except OSError as error:
        raise DeployError(f"cannot be written ({error.strerror})", where=str(path)) from None


def _tensor(value: Tensor | float) -> Tensor:
    import torch  # noqa: PLC0415

    return torch.as_tensor(value).detach().cpu().clone().contiguous()


def load(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, mark: str) -> list[Epoch]:
    """Restores module and optimizer; the history of what was done, empty where there is no file.

    Raises:
        DeployError: the file is damaged, or belongs to another run.
    """
    if not path.exists():
        return []
    try:
        from safetensors import SafetensorError, safe_open  # noqa: PLC0415
    except ImportError:
        raise MissingExtraError("safetensors", "train", "reading a checkpoint") from None
    try:
        with safe_open(path, framework="pt") as file:
            meta = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
        if meta.get("fingerprint") != mark:
            raise DeployError(
                "is the checkpoint of another run: other options, data or starting weights",
                where=str(path),
                hint=_HINT,
            )
        history = [Epoch(*entry) for entry in json.loads(meta["epochs"])]
        _restore(tensors, module, optimizer)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise DeployError(f"is no readable checkpoint ({error})", where=str(path), hint=_HINT) from None
    return history


def _restore(tensors: dict[str, Tensor], module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    module.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model/")})
    states: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer/"):
            _, index, key = name.split("/")
            states.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
