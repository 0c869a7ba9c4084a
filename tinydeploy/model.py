"""A model as the user names it: a file, or a Python factory with weights."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tinydeploy.backends.c.syntax import name_from
from tinydeploy.errors import DeployError
from tinydeploy.frontends.files import read_bytes
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.show import show
from tinydeploy.passes.canonical import canonical
from tinydeploy.passes.concatenations import fold_requantizations
from tinydeploy.passes.constants import fold_constants
from tinydeploy.passes.pads import fold_pads

if TYPE_CHECKING:
    import torch

SUFFIXES = (".tflite", ".onnx", ".pt2")
_HINT = "give a .tflite, .onnx or .pt2 file, or package.module:factory with --weights FILE.safetensors"


@dataclass(frozen=True)
class Model:
    """A model as it was read.

    Attributes:
        path: as the user gave it; the name of one that no file holds.
        sha256: of the file's bytes; of the graph and its constants for a factory.
    """

    path: str
    graph: Graph
    sha256: str

    @property
    def default_name(self) -> str:
        """A C identifier made from the file's or factory's name."""
        return name_from(Path(self.path).stem if Path(self.path).suffix in SUFFIXES else self.path)


def load_model(path: str | os.PathLike[str], weights: str | os.PathLike[str] | None = None) -> Model:
    """Reads a model file, or calls a factory.

    Args:
        path: a .tflite, .onnx or .pt2 file, or `package.module:factory`.
        weights: a .safetensors file (or a .pt state dict) for a factory.

    Raises:
        DeployError: the model cannot be read, is damaged, or holds something unsupported.
        MissingExtraError: a factory, and PyTorch is not installed.
    """
    text = os.fspath(path)
    file = Path(text)
    suffix = file.suffix.lower()
    if suffix not in SUFFIXES and ":" in text and not file.exists():
        return _from_factory(text, None if weights is None else Path(weights))
    if weights is not None:
        raise DeployError(f"holds its own weights, and --weights gives others ({weights})", where=text)
    if suffix not in SUFFIXES:
        raise DeployError(f"is of type {suffix or 'no suffix'}, which is no model", where=text, hint=_HINT)
    data = read_bytes(file)
    graph = _one_form(_parse(suffix, data, file))
    return Model(text, graph, hashlib.sha256(data).hexdigest())


def from_torch(module: torch.nn.Module, input_shape: Sequence[int], name: str = "model") -> Model:
    """A model that no file holds: a PyTorch network in evaluation mode, with its weights as they are.

    Args:
        input_shape: with the batch axis in front, which becomes 1; NCHW for images.
        name: of the model, in reports and in the C.

    Raises:
        DeployError: the module cannot be exported, or holds something unsupported; all of it is named.
        MissingExtraError: PyTorch is not installed.
    """
    from tinydeploy.frontends.torch import import_module  # noqa: PLC0415

    graph = _one_form(import_module(module, tuple(input_shape), name, name))
    return Model(name, graph, graph_sha256(graph))


def _one_form(graph: Graph) -> Graph:
    """What formats write in several ways, so that a model gives the same C from any file."""
    return canonical(fold_requantizations(fold_pads(fold_constants(graph))))


def _parse(suffix: str, data: bytes, file: Path) -> Graph:
    # One format's packages are not imported for another's file.
    name, source = name_from(file.stem), str(file)
    if suffix == ".onnx":
        from tinydeploy.frontends.onnx import parse_onnx  # noqa: PLC0415

        return parse_onnx(data, name, source)
    if suffix == ".pt2":
        from tinydeploy.frontends.torch import read_pt2  # noqa: PLC0415

        return read_pt2(file)
    from tinydeploy.frontends.tflite import parse_tflite  # noqa: PLC0415

    return parse_tflite(data, name, source)


def _from_factory(reference: str, weights: Path | None) -> Model:
    from tinydeploy.frontends.torch import read_factory  # noqa: PLC0415

    graph = _one_form(read_factory(reference, weights))
    return Model(reference, graph, graph_sha256(graph))


def graph_sha256(graph: Graph) -> str:
    """A digest of a graph that no file holds: of its text and the bytes of its constants."""
    digest = hashlib.sha256(show(graph).encode())
    for value in graph.constants():
        digest.update(value.array.tobytes())
    return digest.hexdigest()
