"""Channel pruning on the graph: coupled groups, their importance, how many stay, and the smaller graph."""

from tinydeploy.prune.apply import mask, remove
from tinydeploy.prune.groups import Channel, Group, Groups, find_groups
from tinydeploy.prune.importance import IMPORTANCES, importance
from tinydeploy.prune.select import (
    select_by_macs,
    select_by_params,
    select_by_ratio,
    select_over_all,
)

__all__ = [
    "IMPORTANCES",
    "Channel",
    "Group",
    "Groups",
    "find_groups",
    "importance",
    "mask",
    "remove",
    "select_by_macs",
    "select_by_params",
    "select_by_ratio",
    "select_over_all",
]
