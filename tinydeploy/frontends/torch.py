"""PyTorch networks to graphs: an `nn.Module`, a `.pt2` file, or `package.module:factory` with weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tinydeploy.errors import DeployError
from tinydeploy.frontends.torch_archive import read_archive
from tinydeploy.frontends.torch_graph import graph_of
from tinydeploy.frontends.torch_program import program_of
from tinydeploy.frontends.torch_weights import first_line, load_weights, need_torch
from tinydeploy.hooks import load_hook
from tinydeploy.ir.graph import Graph

if TYPE_CHECKING:
    import torch


def import_module(
    module: torch.nn.Module, input_shape: tuple[int, ...], name: str = "model", source: str = ""
) -> Graph:
    """The float graph of a module.

    Args:
        input_shape: with the batch axis in front, which becomes 1.

    Raises:
        DeployError: the module cannot be exported, or uses what is not supported; all of it is named.
        MissingExtraError: PyTorch is not installed.
    """
    torch = need_torch()
    module = module.eval()
    example = torch.zeros((1, *input_shape[1:]), dtype=torch.float32)
    try:
        with torch.no_grad():
            exported = torch.export.export(module, (example,))
            # Without a table nothing is decomposed, but operators that work in place become pure ones.
            exported = exported.run_decompositions({})
    except DeployError:
        raise
    except Exception as error:
        raise DeployError(
            f"torch.export cannot trace the module for an input of shape {tuple(example.shape)}"
            f" ({type(error).__name__}: {first_line(error)})",
            where=source or name,
            hint="the network must take one float32 tensor and must not branch on its values",
        ) from error
    return graph_of(program_of(exported), name, source)


def read_pt2(path: Path) -> Graph:
    """The float graph of a file that `torch.export.save` wrote; nothing in it is executed.

    A batch that was exported as varying is fixed to 1. PyTorch itself is not needed.

    Raises:
        DeployError: the file cannot be read, is damaged, or holds what is not supported.
    """
    return graph_of(read_archive(path), path.stem, str(path))


def read_factory(reference: str, weights: Path | None) -> Graph:
    """The float graph of the module that `package.module:factory` returns.

    The factory is called without arguments. It returns a module that has an attribute
    `example_input_shape`, or a pair (module, input shape); the shape starts with the batch axis.

    Args:
        weights: a `.safetensors` file, or a `.pt` state dict, which is loaded without unpickling objects.

    Raises:
        DeployError: the factory fails or returns something else, or the weights do not fit.
        MissingExtraError: PyTorch or safetensors is not installed.
    """
    torch = need_torch()
    try:
        made = load_hook(reference, "a function that returns a torch.nn.Module")()
    except DeployError:
        raise
    except Exception as error:
        raise DeployError(f"raised {type(error).__name__}: {first_line(error)}", where=reference) from error
    module, shape = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(module, torch.nn.Module):
        raise DeployError(f"returned {type(module).__name__}, not a torch.nn.Module", where=reference)
    shape = getattr(module, "example_input_shape", None) if shape is None else shape
    if (
        not isinstance(shape, (tuple, list))
        or not shape
        or not all(isinstance(n, int) and n > 0 for n in shape)
    ):
        raise DeployError(
            f"says nothing of its input's shape ({shape!r})",
            where=reference,
            hint="return (module, (1, 3, 32, 32)), or set module.example_input_shape",
        )
    if weights is not None:
        load_weights(module, weights)
    return import_module(module, tuple(shape), reference.rpartition(":")[2], reference)
