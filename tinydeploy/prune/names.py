"""Layers as the user names them, for protection and for ratios of their own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tinydeploy.errors import DeployError
from tinydeploy.ir.graph import Graph
from tinydeploy.prune.groups import Groups

_HINT = "`tinydeploy inspect MODEL --groups` prints the names"


def short_name(name: str) -> str:
    """What is printed of a layer's name: TFLite files join the names of all that was fused by semicolons."""
    return name.split(";", 1)[0]


def find_layers(graph: Graph, wanted: Iterable[str], option: str) -> tuple[str, ...]:
    """The names of nodes, for names in full or as they are printed.

    Raises:
        DeployError: there is no such layer, or a shortened name fits several.
    """
    names = [node.name for node in graph.nodes]
    found = []
    for name in wanted:
        fitting = [n for n in names if n == name] or [n for n in names if short_name(n) == name]
        if len(fitting) != 1:
            fact = "there is no layer" if not fitting else f"{len(fitting)} layers have the name"
            raise DeployError(f"{fact} {name!r} in {graph.source or graph.name}", where=option, hint=_HINT)
        found.append(fitting[0])
    return tuple(found)


def group_ratios(graph: Graph, groups: Groups, ratios: Mapping[str, float], option: str) -> dict[str, float]:
    """Ratios by the group's name, for ratios by the name of any layer that writes the group.

    Raises:
        DeployError: a layer that does not exist or must keep its channels, a ratio outside [0, 1), or two
            ratios for one group.
    """
    result: dict[str, float] = {}
    by_layer = {layer: group for group in groups.groups for layer in group.layers}
    for given, layer in zip(ratios, find_layers(graph, ratios, option), strict=True):
        ratio = ratios[given]
        if not 0.0 <= ratio < 1.0:
            raise DeployError(f"the ratio {ratio:g} of {given!r} is not in [0, 1)", where=option)
        if layer not in by_layer:
            raise DeployError(
                f"the channels of {given!r} must stay: it is protected, or the output or an op without"
                " weights depends on each of them",
                where=option,
                hint=_HINT,
            )
        group = by_layer[layer]
        if result.get(group.name, ratio) != ratio:
            raise DeployError(
                f"the channels of {given!r} go together with those of {short_name(group.name)!r},"
                f" and two ratios are given: {ratio:g} and {result[group.name]:g}",
                where=option,
                hint="give one ratio for the group",
            )
        result[group.name] = ratio
    return result
