"""The coupled channel groups as text."""

from __future__ import annotations

from tinydeploy.prune import Groups
from tinydeploy.prune.names import short_name


def groups_text(groups: Groups) -> str:
    """One block a group: how many channels, the layers that write them, the layers that read them."""
    lines = [f"{len(groups.groups)} prunable groups"]
    for number, group in enumerate(groups.groups):
        lines.append(f"group {number}: {len(group.channels)} channels")
        lines += [f"  writes {short_name(name)}" for name in group.layers]
        lines += [f"  reads  {short_name(name)}" for name in group.consumers]
    if groups.frozen:
        lines.append("kept as they are: " + ", ".join(short_name(name) for name in groups.frozen))
    return "\n".join(lines) + "\n"


def groups_document(groups: Groups) -> list[dict[str, object]]:
    """The same for JSON."""
    return [
        {
            "name": g.name,
            "channels": len(g.channels),
            "layers": list(g.layers),
            "consumers": list(g.consumers),
        }
        for g in groups.groups
    ]
