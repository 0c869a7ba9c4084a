"""The memory plan as a picture: one line a buffer, one column a node."""

from __future__ import annotations

from tinydeploy.plan import Plan


def memory_picture(plan: Plan, nodes: int) -> str:
    """Text with offset, size, live range and members of every buffer, by offset.

    Columns are: the input before the first node, each node, the output after the last one.
    """
    widths = max((len(f"{p.end:,}") for p in plan.placements), default=1)
    lines = [
        f"arena {plan.arena_bytes:,} B, {optimality(plan)}",
        f"{'from':>{widths}} {'to':>{widths}}  live: input (left), {nodes} nodes, output (right)",
    ]
    for p in plan.placements:
        live = "".join("#" if p.buffer.first <= t <= p.buffer.last else "." for t in range(-1, nodes + 1))
        names = ", ".join(m.split(";")[0] for m in p.buffer.members[:3]) or p.buffer.name.split(";")[0]
        more = f" and {len(p.buffer.members) - 3} more" if len(p.buffer.members) > 3 else ""
        lines.append(f"{p.offset:>{widths},} {p.end:>{widths},}  {live}  {names}{more}")
    return "\n".join(lines) + "\n"


def optimality(plan: Plan) -> str:
    """How near the offsets are to the best ones: no plan is smaller than what is live at once."""
    bound = plan.lower_bound_bytes
    over = plan.arena_bytes - bound
    if over <= 0:
        return "the least possible: so much is live at once"
    share = f"at most {over:,} B ({100 * over / bound:.1f} %) above the least possible"
    return f"{share}: {bound:,} B are live at once"
