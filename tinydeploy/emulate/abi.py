"""What the emulator has to know of an exported C project, and nothing more."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelAbi:
    """The calling convention of one exported model.

    Attributes:
        name: the prefix of every symbol of the model, such as ``kws``.
        input_bytes: size of each input in bytes, in the order of the signature.
        output_bytes: size of each output in bytes, in the order of the signature.
        arena_bytes: exact size of the arena; its ELF object may be up to 3 bytes larger.
        sources: the C files to compile, relative to the project's folder.
        init: there is a ``NAME_init``, which ``NAME_run`` calls where nobody did before.
    """

    name: str
    input_bytes: tuple[int, ...]
    output_bytes: tuple[int, ...]
    arena_bytes: int
    sources: tuple[str, ...]
    init: bool = False

    @property
    def single(self) -> bool:
        """Whether ``NAME_run`` takes two plain pointers and not a ``struct NAME_io``."""
        return len(self.input_bytes) == 1 and len(self.output_bytes) == 1

    @property
    def run_symbol(self) -> str:
        return f"{self.name}_run"

    @property
    def init_symbol(self) -> str:
        return f"{self.name}_init"

    @property
    def arena_symbol(self) -> str:
        return f"{self.name}_arena"

    @property
    def weights_source(self) -> str:
        return f"{self.name}_weights.c"

    @property
    def input_symbols(self) -> tuple[str, ...]:
        """The functions that give the inputs' places inside the arena."""
        return self._places("input", len(self.input_bytes))

    @property
    def output_symbols(self) -> tuple[str, ...]:
        """The functions that give the outputs' places inside the arena."""
        return self._places("output", len(self.output_bytes))

    @property
    def entry_symbols(self) -> tuple[str, ...]:
        """Every function that the emulator calls."""
        start = (self.init_symbol,) if self.init else ()
        return (self.run_symbol, *start, *self.input_symbols, *self.output_symbols)

    def _places(self, kind: str, count: int) -> tuple[str, ...]:
        if self.single:
            return (f"{self.name}_{kind}",)
        return tuple(f"{self.name}_{kind}_{index}" for index in range(count))
