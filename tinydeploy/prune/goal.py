"""What `--prune` asks for: a ratio, `auto`, or a goal such as `macs=50%`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from tinydeploy.errors import DeployError

GOALS = ("macs", "params", "flash", "ram", "latency")
MEASURED = ("flash", "ram", "latency")
"""Goals that take a build and a run on the target."""

_RELATIVE_ONLY = ("macs", "params")
_UNITS = {"": 1, "b": 1, "k": 1024, "kb": 1024, "m": 1 << 20, "mb": 1 << 20}
_HINT = "a ratio such as 0.3, auto, macs=50%, params=40%, flash=64k, ram=24k, latency=20ms, latency=50%"


@dataclass(frozen=True)
class PruneGoal:
    """One request.

    Attributes:
        kind: "none", "ratio", "auto", or one of GOALS.
        amount: the ratio; the fraction that may be left for macs, params and whatever is relative; bytes for
            flash and ram; milliseconds for latency; 0 for none and auto.
        relative: flash, ram or latency as a share of what the unpruned int8 network takes.
    """

    kind: str
    amount: float = 0.0
    relative: bool = False

    @property
    def is_measured(self) -> bool:
        return self.kind in MEASURED


def parse_goal(text: str | None) -> PruneGoal:
    """Reads the argument of `--prune`.

    Raises:
        DeployError: it is none of the forms, or out of range.
    """
    if text is None:
        return PruneGoal("none")
    if text == "auto":
        return PruneGoal("auto")
    name, equals, amount = text.partition("=")
    if not equals:
        ratio = _number(text, text)
        if not 0.0 <= ratio < 1.0:
            raise DeployError(f"the pruning ratio {text} is not in [0, 1)", where="--prune", hint=_HINT)
        return PruneGoal("ratio", ratio)
    if name not in GOALS:
        raise DeployError(f"{name!r} is no pruning goal", where="--prune", hint=_HINT)
    if amount.endswith("%"):
        share = _number(amount[:-1], text) / 100.0
        if not 0.0 < share <= 1.0:
            raise DeployError(f"{text!r} is not in (0 %, 100 %]", where="--prune", hint=_HINT)
        return PruneGoal(name, share, relative=name in MEASURED)
    if name in _RELATIVE_ONLY:
        raise DeployError(f"{text!r} is no share of the {name}", where="--prune", hint=_HINT)
    if name == "latency":
        return PruneGoal(name, _milliseconds(amount.strip().lower(), text))
    match = re.fullmatch(r"([0-9.]+)\s*([a-z]*)", amount.lower())
    if match is None or match[2] not in _UNITS:
        raise DeployError(f"{text!r} is no number of bytes", where="--prune", hint=_HINT)
    return PruneGoal(name, _positive(match[1], text) * _UNITS[match[2]])


def _milliseconds(amount: str, text: str) -> float:
    for unit, factor in (("ms", 1.0), ("us", 1e-3), ("s", 1e3)):
        if amount.endswith(unit):
            return _positive(amount.removesuffix(unit), text) * factor
    raise DeployError(f"{text!r} has no unit: us, ms or s", where="--prune", hint=_HINT)


def _number(digits: str, text: str) -> float:
    try:
        number = float(digits)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise DeployError(f"{text!r} is no amount to prune", where="--prune", hint=_HINT)
    return number


def _positive(digits: str, text: str) -> float:
    number = _number(digits, text)
    if number <= 0:
        raise DeployError(f"{text!r} is not above zero", where="--prune", hint=_HINT)
    return number
