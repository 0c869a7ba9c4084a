"""The cost functions: data that `benchmarks/fit_estimate.py` fitted on emulated runs."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from tinydeploy.errors import DeployError
from tinydeploy.targets import FlashTiming

FILE = "costs.json"
_HINT = "leave --estimate out: the emulated core runs whatever compiles"


@dataclass(frozen=True)
class KernelCost:
    """What one kernel costs on one core, as sums of features times factors.

    Attributes:
        issue, branches: cycles with memory that never waits.
        instructions: executed.
        code_bytes: of one layer's function.
        stack_bytes: the most that was seen below ``NAME_run``.
    """

    issue: Mapping[str, float]
    branches: Mapping[str, float]
    instructions: Mapping[str, float]
    code_bytes: int
    stack_bytes: int


@dataclass(frozen=True)
class FlashCost:
    """Lines of one kind of flash that one kernel misses.

    Attributes:
        fetch: of code. following: those of them that a prefetch would have begun. read: of constants.
    """

    fetch: Mapping[str, float]
    following: Mapping[str, float]
    read: Mapping[str, float]


@dataclass(frozen=True)
class HeldOut:
    """How whole networks that were not fitted on compared with their emulated runs; errors in per cent."""

    networks: int
    mean_error_pct: float
    worst_error_pct: float


@dataclass(frozen=True)
class CoreCosts:
    """The kernels of one core, with the flash of one board or without.

    Attributes:
        base_bytes: code of a model beside its layers.
        compiler: whose code was run.
        held_out: of these very figures.
    """

    kernels: Mapping[str, KernelCost]
    flash: Mapping[str, FlashCost] | None
    base_bytes: int
    compiler: str
    held_out: HeldOut

    def kernel(self, name: str) -> KernelCost:
        """The cost of a kernel.

        Raises:
            DeployError: it was not fitted.
        """
        found = self.kernels.get(name)
        if found is None:
            raise DeployError(f"no cost function was fitted for the kernel {name}", hint=_HINT)
        return found


def flash_key(core: str, flash: FlashTiming) -> str:
    """The name of one kind of flash: all that the number of missed lines depends on."""
    parts = (flash.line_bytes, flash.icache_bytes, flash.dcache_bytes, int(flash.unified_cache))
    return f"{core}/{'-'.join(map(str, parts))}"


def core_costs(core: str, flash: FlashTiming | None) -> CoreCosts:
    """The cost functions of a core.

    Args:
        flash: of the board; None for memory that never waits.

    Raises:
        DeployError: none were fitted for this core, or for a flash like this.
    """
    data = _data()
    found = data["cores"].get(core)
    if found is None:
        known = ", ".join(sorted(data["cores"]))
        raise DeployError(f"no cost functions were fitted for the core {core} ({known})", hint=_HINT)
    waits, held_out = None, found["held_out"]
    if flash is not None:
        board = data["flash"].get(flash_key(core, flash))
        if board is None:
            fact = f"no cost functions were fitted for a flash like this board's ({flash_key(core, flash)})"
            raise DeployError(fact, hint=_HINT)
        waits = {name: FlashCost(**cost) for name, cost in board["kernels"].items()}
        held_out = board["held_out"]
    return CoreCosts(
        kernels={name: KernelCost(**cost) for name, cost in found["kernels"].items()},
        flash=waits,
        base_bytes=found["base_bytes"],
        compiler=found["compiler"],
        held_out=HeldOut(**held_out),
    )


def cost(factors: Mapping[str, float], features: Mapping[str, float]) -> float:
    """The sum of features times factors; a feature that a layer does not have is 0."""
    return sum(factor * features.get(name, 0.0) for name, factor in factors.items())


@functools.cache
def _data() -> Any:
    return json.loads((resources.files(__package__) / FILE).read_text(encoding="utf-8"))
