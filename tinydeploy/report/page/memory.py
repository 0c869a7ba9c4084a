"""The memory plan over time, as a picture: what lies where in the arena, from which layer to which."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tinydeploy.backends.c.model import Model
from tinydeploy.plan import Placement
from tinydeploy.plan.lifetime import live_bytes
from tinydeploy.profiling import Profile
from tinydeploy.report.page.view import short_name

HEIGHT = 260
"""Pixels of the picture; its width is that of the page."""

_TICKS = 13
_LABEL_PIXELS = 15
# Two digits and their margin, of a picture of 950 pixels and of 300.
_WIDE_PERCENT = 2.5
_PHONE_PERCENT = 8.0


@dataclass(frozen=True)
class Block:
    """A buffer. Left and width in per cent of the picture's width, top and height in pixels."""

    left: float
    width: float
    top: float
    height: float
    kind: str
    label: str
    names: str
    offset: int
    size: int
    first: str
    last: str

    @property
    def room(self) -> str:
        """For which pages a label fits: "none", "wide" ones, or "any", a phone's too."""
        if self.height < _LABEL_PIXELS or self.width < _WIDE_PERCENT:
            return "none"
        return "wide" if self.width < _PHONE_PERCENT else "any"


@dataclass(frozen=True)
class Step:
    """One moment: a layer, or the input before and the output after them."""

    name: str
    left: float
    width: float
    live: int
    height: float
    peak: bool
    tick: str


@dataclass(frozen=True)
class MemoryPicture:
    """The plan of one or several targets.

    Attributes:
        targets: titles of the targets that have this plan.
        ticks: bytes, and pixels from the top.
        left_out: buffers, the smallest, that the picture has no room for.
    """

    targets: tuple[str, ...]
    arena_bytes: int
    bound_bytes: int
    blocks: tuple[Block, ...]
    steps: tuple[Step, ...]
    ticks: tuple[tuple[int, float], ...]
    left_out: int

    @property
    def peak(self) -> Step:
        return next(step for step in self.steps if step.peak)


def memory_pictures(profile: Profile, most_blocks: int) -> tuple[MemoryPicture, ...]:
    """A picture for every plan; targets whose layers need the same kernels share one.

    Args:
        most_blocks: buffers over all pictures; each picture has at least eight, the largest ones.
    """
    plans: dict[tuple[Placement, ...], list[tuple[str, Model]]] = {}
    for t in profile.targets:
        model = t.measurement.project.model
        plans.setdefault(model.plan.placements, []).append((t.target.title, model))
    most = max(8, most_blocks // len(plans))
    return tuple(
        memory_picture(owners[0][1], tuple(title for title, _ in owners), most) for owners in plans.values()
    )


def memory_picture(model: Model, targets: tuple[str, ...], most_blocks: int) -> MemoryPicture:
    """The picture of one plan."""
    plan, nodes = model.plan, len(model.graph.nodes)
    names = _step_names(model)
    steps = tuple(_steps(live_bytes(plan, nodes), names, most_blocks))
    placed = sorted(plan.placements, key=lambda p: -p.buffer.bytes)
    # Where a tensor lies over one that dies, the later one is on top: both labels stand at the left.
    kept = sorted(placed[:most_blocks], key=lambda p: (p.buffer.first, p.offset))
    return MemoryPicture(
        targets,
        plan.arena_bytes,
        plan.lower_bound_bytes,
        tuple(_block(p, model, names) for p in kept),
        steps,
        tuple(_byte_ticks(plan.arena_bytes)),
        len(placed) - len(kept),
    )


def _step_names(model: Model) -> dict[int, str]:
    """By step: `3 conv_2d`, with the number that the layer has in the tables."""
    numbers = {layer.node.name: layer.index for layer in model.layers}
    names = {-1: "input"}
    for i, node in enumerate(model.graph.nodes):
        number = numbers.get(node.name)
        kind = node.op.kind.lower()
        # A view is no layer of the generated code.
        names[i] = f"{kind} (no code)" if number is None else f"{number} {kind}"
    names[len(model.graph.nodes)] = "output"
    return names


def _steps(live: Mapping[int, int], names: dict[int, str], most: int) -> Iterator[Step]:
    """The steps, or of a long network the fullest of each few."""
    peak = max(live, key=lambda step: live[step])
    together = -(-len(live) // most)
    every = -(-len(live) // (_TICKS * together))
    order, ticked = list(live), -every
    for i, start in enumerate(range(0, len(order), together)):
        few = order[start : start + together]
        step = peak if peak in few else max(few, key=lambda s: live[s])
        number = names[step].split(" ", 1)[0]
        tick = number if number.isdigit() and i - ticked >= every else ""
        ticked = i if tick else ticked
        yield Step(
            name=names[step],
            left=100 * start / len(order),
            width=100 * len(few) / len(order),
            live=live[step],
            height=100 * live[step] / max(live[peak], 1),
            peak=step == peak,
            tick=tick,
        )


def _block(p: Placement, model: Model, names: dict[int, str]) -> Block:
    arena, steps = max(model.plan.arena_bytes, 1), len(names)
    buffer = p.buffer
    scale = HEIGHT / arena
    ends = {*model.graph.inputs, *model.graph.outputs}
    kind = "scratch" if not buffer.members else "border" if ends & {*buffer.members} else "inner"
    members = [short_name(name) for name in buffer.members[:3]]
    more = len(buffer.members) - len(members)
    first, last = names[buffer.first], names[buffer.last]
    # A tensor is known by the layer that writes it.
    label = "scratch" if kind == "scratch" else first
    return Block(
        left=100 * (buffer.first + 1) / steps,
        width=100 * (buffer.last - buffer.first + 1) / steps,
        top=HEIGHT - p.end * scale,
        height=max(buffer.bytes * scale, 1.0),
        kind=kind,
        label=label,
        names=(", ".join(members) + (f" and {more} more" if more > 0 else "")) or f"scratch of layer {first}",
        offset=p.offset,
        size=buffer.bytes,
        first=first,
        last=last,
    )


def _byte_ticks(arena: int) -> Iterator[tuple[int, float]]:
    """Round numbers of bytes up to the arena's size, four to eight of them."""
    step = 1
    while arena / step > 8:
        step *= 2
    if step < 1024 < arena:
        step = 1024
    for size in range(0, arena + 1, step):
        yield size, HEIGHT - HEIGHT * size / max(arena, 1)
