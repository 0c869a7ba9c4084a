"""Costs of kernels that were measured on the target's core, in place of the stored ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tinydeploy.ir.graph import Node
from tinydeploy.ir.op import Site
from tinydeploy.ir.show import attributes, shape_text


@dataclass(frozen=True)
class KernelCost:
    """What a kernel of one layer took.

    Attributes:
        cycles: of one inference.
        flash_bytes: constants and code of the layer.
    """

    cycles: int
    flash_bytes: int


@dataclass(frozen=True)
class MeasuredCosts:
    """What every candidate of every layer took.

    Attributes:
        compiler: what built them.
        target: the core or board whose cycles they are.
        by_kernel: by layer_key, name of the kernel and its block.
    """

    compiler: str
    target: str
    by_kernel: Mapping[tuple[str, str, int], KernelCost]


def layer_key(node: Node, site: Site) -> str:
    """Name and geometry of a layer: a pruned layer keeps its name and has other costs."""
    shapes = [
        "-" if v is None else f"{shape_text(v.shape)} {v.dtype.value}" for v in (*site.inputs, site.output)
    ]
    return " ".join((node.name, node.op.kind, str(dict(attributes(node.op))), *shapes))
