"""Codebook indices that are Huffman-coded in flash: their constants, the choice, and their C."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tinydeploy.backends.c.fields import bit_stream, field_words
from tinydeploy.backends.c.layer import Constant, Indices, Layer, LayerCode
from tinydeploy.errors import DeployError
from tinydeploy.plan.coding import STREAM, WORDS, Codable, code_bytes, saved_bytes, worth_coding
from tinydeploy.plan.huffman import encode

HEADER = "td_kernels_huffman.h"

PACKED, HUFFMAN, AUTO = CODEBOOKS = ("packed", "huffman", "auto")
"""How flash holds codebook indices: packed, all of them Huffman-coded, or coded where that pays."""

READY_BYTES = 4
"""Of the mark that says whether the indices were decoded."""

_LAYOUTS = {"uint8_t": STREAM, "int32_t": WORDS}
_CTYPES = {layout: ctype for ctype, layout in _LAYOUTS.items()}


@dataclass(frozen=True)
class Coding:
    """What coding does to a model.

    Attributes:
        layers: how many have coded indices.
        packed_bytes, coded_bytes: of their indices in flash, without and with the code.
        code_bytes: machine code of the decoder, estimated.
        ram_bytes: of the decoded indices.
    """

    layers: int
    packed_bytes: int
    coded_bytes: int
    code_bytes: int
    ram_bytes: int

    @property
    def saved_bytes(self) -> int:
        """Flash that is saved in all, estimated."""
        return self.packed_bytes - self.coded_bytes - self.code_bytes

    def to_json(self) -> dict[str, int]:
        return {
            "layers": self.layers,
            "packed_bytes": self.packed_bytes,
            "coded_bytes": self.coded_bytes,
            "decoder_bytes_estimated": self.code_bytes,
            "flash_saved_bytes_estimated": self.saved_bytes,
            "ram_bytes": self.ram_bytes,
        }


def code_layers(layers: Sequence[Layer], codebooks: str, ram: int | None) -> tuple[Layer, ...]:
    """The layers with the indices coded that `codebooks` asks for, of kernels that read indices.

    Args:
        ram: with AUTO, bytes of RAM that are left for decoded indices; None for any.

    Raises:
        DeployError: HUFFMAN, and no kernel reads indices; or `codebooks` is none of CODEBOOKS.
    """
    require_codebooks(codebooks)
    if codebooks == PACKED:
        return tuple(layers)
    places = [i for i, layer in enumerate(layers) if _indices(layer.code) is not None]
    if codebooks == HUFFMAN and not places:
        raise DeployError(
            "no layer's kernel reads codebook indices, so there is nothing to code",
            where="--codebooks huffman",
            hint="compress --scheme codebook:N makes indices; --optimize flash, balanced or ram keeps them in"
            " flash where latency takes whole weights; --codebooks auto codes what there is",
        )
    coded = {i: replace(layers[i], code=_coded(layers[i].code)) for i in places}
    chosen = [*coded]
    if codebooks == AUTO:
        left = None if ram is None else ram - READY_BYTES
        chosen = [places[i] for i in worth_coding([_codable(coded[i]) for i in places], left)]
    return tuple(coded[i] if i in chosen else layer for i, layer in enumerate(layers))


def require_codebooks(codebooks: str) -> None:
    """Raises DeployError for a --codebooks that does not exist."""
    if codebooks not in CODEBOOKS:
        raise DeployError(
            f"{codebooks!r} is no way to hold codebook indices",
            where="--codebooks",
            hint=f"one of {', '.join(CODEBOOKS)}",
        )


def coding_of(layers: Sequence[Layer]) -> Coding | None:
    """What is coded, and what that saves and takes; None where nothing is."""
    found = [_codable(layer) for layer in layers if layer.decoded_bytes]
    if not found:
        return None
    packed, coded = sum(c.packed for c in found), sum(c.coded for c in found)
    code = code_bytes(found)
    assert saved_bytes(found) == packed - coded - code
    return Coding(len(found), packed, coded, code, sum(c.ram for c in found) + READY_BYTES)


def coded_constants(layers: Sequence[Layer]) -> Iterator[tuple[Layer, Constant]]:
    """The constants that are decoded at start-up, with their layers."""
    for layer in layers:
        for constant in layer.code.constants:
            if constant.coded is not None:
                yield layer, constant


def _indices(code: LayerCode) -> Constant | None:
    return next((c for c in code.constants if c.indices is not None), None)


def _codable(layer: Layer) -> Codable:
    c = _indices(layer.code)
    assert c is not None, "its kernel reads indices"
    return Codable(_LAYOUTS[c.ctype], c.data_bytes, c.bytes, c.ram_bytes)


def _coded(code: LayerCode) -> LayerCode:
    """The same layer with coded indices, and its table in the order of the codes."""
    (table,) = (c for c in code.constants if c.role == "table")
    constant = _indices(code)
    assert constant is not None and constant.indices is not None
    bits, fields = constant.indices.bits, constant.indices.fields
    made = encode(fields, table.data.size)
    ranks = np.argsort(made.order).astype(np.uint8)[fields]
    data = bit_stream(ranks, bits) if constant.ctype == "uint8_t" else field_words(ranks.reshape(-1, 4), bits)
    new = {
        table.role: replace(table, data=table.data[np.array(made.order)]),
        constant.role: replace(constant, data=data, indices=Indices(bits, ranks, made.data)),
    }
    return replace(code, constants=tuple(new.get(c.role, c) for c in code.constants))


def decoded_arrays(name: str, layers: Sequence[Layer]) -> Iterator[str]:
    """The C lines of NAME.c that stand before the layers: places in RAM and what fills them."""
    found = list(coded_constants(layers))
    yield "/* Codebook indices, which flash holds Huffman-coded. */"
    for layer, c in found:
        yield f"static {c.ctype} {layer.expression(name, c)}[{c.data.size}];"
    yield f"static uint8_t {name}_ready;"
    yield ""
    for layout in dict.fromkeys(_LAYOUTS[c.ctype] for _, c in found):
        parameters = f"const uint8_t *coded, int32_t count, int32_t bits, {_CTYPES[layout]} *to"
        yield f"static TD_NOINLINE void {name}_decode_{layout}({parameters})"
        yield from ("{", f"    td_huffman_{layout}(coded, count, bits, to);", "}", "")
    yield f"TD_NOINLINE void {name}_init(void)"
    yield "{"
    for layer, c in found:
        assert c.indices is not None
        layout = _LAYOUTS[c.ctype]
        count = c.indices.fields.size // (4 if layout == WORDS else 1)
        to = layer.expression(name, c)
        coded = f"{name}_weights.{layer.member(c)}"
        yield f"    {name}_decode_{layout}({coded}, {count}, {c.indices.bits}, {to});"
    yield from (f"    {name}_ready = 1;", "}", "")
