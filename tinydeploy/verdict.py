"""Whether a measured model keeps the memories of its board and the limits of its user."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tinydeploy.errors import DeployError
from tinydeploy.latency import milliseconds
from tinydeploy.measure import Measurement
from tinydeploy.targets import Board, Target

Resource = Literal["flash", "RAM", "latency"]


@dataclass(frozen=True)
class Limits:
    """What the user allows; None is as much as the board has, and any latency.

    Attributes:
        flash, ram: bytes.
        latency_ms: milliseconds of one inference.
    """

    flash: int | None = None
    ram: int | None = None
    latency_ms: float | None = None

    @property
    def given(self) -> bool:
        """Whether the user set any."""
        return self != Limits()

    def on(self, board: Board | None) -> Limits:
        """These limits on a board, whose memories bound them."""
        if board is None:
            return self
        return Limits(
            board.flash_bytes if self.flash is None else min(self.flash, board.flash_bytes),
            board.ram_bytes if self.ram is None else min(self.ram, board.ram_bytes),
            self.latency_ms,
        )


@dataclass(frozen=True)
class Need:
    """One resource: what the model needs of it and what there is, in bytes or milliseconds.

    `amount` is None where it is not known, which is never enough.
    """

    resource: Resource
    amount: float | None
    limit: float

    @property
    def over(self) -> float:
        """By how much the limit is exceeded; infinite where the need is not known, 0 where it is kept."""
        return float("inf") if self.amount is None else max(0.0, self.amount - self.limit)

    def to_json(self) -> dict[str, object]:
        return {
            "resource": self.resource.lower(),
            "needed": self.amount,
            "limit": self.limit,
            "over": None if self.amount is None else self.amount - self.limit,
        }


@dataclass(frozen=True)
class Verdict:
    """The answer for one target.

    Attributes:
        fits: None where nothing was asked: a bare core has no memories of its own.
        why: the answer in words.
        needs: each resource that has a limit.
    """

    fits: bool | None
    why: str
    needs: tuple[Need, ...] = ()

    @property
    def over(self) -> tuple[Need, ...]:
        """The needs that exceed their limits."""
        return tuple(need for need in self.needs if need.over > 0)


def require_answerable(target: Target, limits: Limits) -> None:
    """Refuses a limit that nothing is known of on a target, before anything is built.

    Raises:
        DeployError: a latency on a core without a clock or without timings, or memory on the host.
    """
    if limits.latency_ms is not None and (target.board is None or target.core.timing is None):
        lacks = "a bare core has no clock" if target.board is None else "its core has no table of timings"
        raise DeployError(
            f"no latency is modelled on {target.name}: {lacks}",
            where="--max-latency-ms",
            hint="name boards with modelled cycles; `tinydeploy targets NAME` shows the timings of a core",
        )
    if target.core.architecture == "host" and limits.given:
        option = "--max-flash" if limits.flash is not None else "--max-ram"
        raise DeployError("the memory of the host is not measured", where=option, hint="name a core or board")


def judge(m: Measurement, target: Target, limits: Limits) -> Verdict:
    """Compares what was measured with the board's memories and the user's limits."""
    allowed = limits.on(target.board)
    found: tuple[tuple[Resource, float | None, float | None], ...] = (
        ("flash", None if m.sizes is None else m.sizes.flash, allowed.flash),
        ("RAM", m.ram_bytes, allowed.ram),
        ("latency", m.latency.latency_ms, allowed.latency_ms),
    )
    needs = tuple(Need(what, amount, limit) for what, amount, limit in found if limit is not None)
    if not needs:
        return Verdict(None, "a core has no flash and RAM of its own; name a board to see whether it fits")
    over = [need for need in needs if need.over > 0]
    texts = [_over(n, m) for n in over] if over else [_kept(n, m) for n in needs]
    return Verdict(not over, "; ".join(texts), needs)


def _over(need: Need, m: Measurement) -> str:
    if need.amount is None:
        return f"{need.resource}: not known ({'; '.join(m.latency.notes) or 'not measured'})"
    amounts = (need.amount, need.limit, need.amount - need.limit)
    needed, there, more = (amount_text(need.resource, amount) for amount in amounts)
    return f"{need.resource}: {needed} needed, {there} there, {more} over"


def _kept(need: Need, m: Measurement) -> str:
    assert need.amount is not None
    if need.resource != "latency":
        return f"{need.resource}: {need.amount:,.0f} of {need.limit:,.0f} B"
    text = f"latency: {milliseconds(need.amount)} of {milliseconds(need.limit)}"
    # A limit inside the band is kept by the model and perhaps not by the board.
    worst = need.amount * (1 + (m.latency.error_pct or 0.0) / 100)
    return text if worst <= need.limit else f"{text}, and its band reaches to {milliseconds(worst)}"


def amount_text(resource: Resource, amount: float) -> str:
    """Bytes or milliseconds with their unit."""
    return milliseconds(amount) if resource == "latency" else f"{amount:,.0f} B"
