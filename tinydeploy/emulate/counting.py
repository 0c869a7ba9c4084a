"""Counts the executed instructions, and gives each to the layer on whose behalf it ran."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from tinydeploy.emulate.cpu import Cpu
from tinydeploy.emulate.image import Image
from tinydeploy.emulate.thumb import instruction_count
from tinydeploy.errors import DeployError

Blocks = dict[tuple[int, int], int]


class InstructionCounter:
    """A block hook on ``cpu``; to be made before the first call on that core.

    The unit that is counted is the emulator's block, (address, size). A block belongs to the layer function
    that it lies in (``NAME_03_conv_2d``, compiler suffixes such as ``.part.0`` cut off) or to ``NAME_run``;
    code elsewhere, such as memcpy, a 64-bit multiplication or a shared kernel, belongs to whichever of
    these ran last.
    """

    def __init__(self, cpu: Cpu, image: Image, model: str) -> None:
        self._cpu, self._image = cpu, image
        self._layer = re.compile(rf"({re.escape(model)}_\d+_[A-Za-z0-9_]+|{re.escape(model)}_run)(\..*)?")
        self._run = f"{model}_run"
        self._counts: dict[str, Blocks] = {}
        self._lengths: Blocks = {}
        self._hook = self._make_hook()
        cpu.on_block(self._hook)

    def start(self) -> None:
        """Forgets all counts."""
        for blocks in self._counts.values():
            blocks.clear()

    def per_function(self) -> Mapping[str, int]:
        """Executed instructions of each layer function and of ``NAME_run``, by name; unused ones left out."""
        totals = {
            name: sum(times * self._length(block) for block, times in blocks.items())
            for name, blocks in self._counts.items()
        }
        return {name: total for name, total in sorted(totals.items()) if total}

    def blocks(self) -> Mapping[tuple[int, int], int]:
        """How often each block (address, size in bytes) ran, for a model of cycles."""
        merged: Blocks = defaultdict(int)
        for blocks in self._counts.values():
            for block, times in blocks.items():
                merged[block] += times
        return dict(merged)

    def _make_hook(self) -> Any:
        """The hook costs more than the block that it counts, so it does a look-up and an addition."""
        owned: dict[int, Blocks | None] = {}
        current = self._blocks_of(self._run)

        def on_block(_uc: Any, address: int, size: int, _data: Any) -> None:
            nonlocal current
            try:
                mine = owned[address]
            except KeyError:
                mine = owned[address] = self._owner(address)
            if mine is not None:
                current = mine
            current[address, size] += 1

        return on_block

    def _owner(self, address: int) -> Blocks | None:
        function = self._image.function_at(address)
        match = self._layer.fullmatch(function.name) if function is not None else None
        return None if match is None else self._blocks_of(match.group(1))

    def _blocks_of(self, name: str) -> Blocks:
        return self._counts.setdefault(name, defaultdict(int))

    def _length(self, block: tuple[int, int]) -> int:
        if block not in self._lengths:
            address, size = block
            if size <= 0:
                where = self._image.locate(address)
                raise DeployError("the emulator gave a block without a size", where=where)
            self._lengths[block] = instruction_count(self._cpu.read(address, size))
        return self._lengths[block]
