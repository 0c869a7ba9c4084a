"""Canonical Huffman codes of bounded length, for codebook indices that are decoded once.

D. A. Huffman, "A Method for the Construction of Minimum-Redundancy Codes" (1952). Lengths come from the
package-merge algorithm of L. L. Larmore and D. S. Hirschberg, "A fast algorithm for optimal length-limited
Huffman codes" (1990). A canonical code is known by how many codes there are of each length, so that is all
that stands before the bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tinydeploy.errors import DeployError

MOST_LENGTH = 15
"""Bits of the longest code. Only from 2,584 symbols on, a number of Fibonacci, can a longer one be better."""

_MOST_SYMBOLS = 128

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Coded:
    """Symbols as bits.

    Attributes:
        order: every symbol of the alphabet, those with the shortest codes first and those that do not occur
            last. Decoding gives places in it, ranks, and not symbols.
        data: uint8: how many lengths there are, how many codes have each of them from 1 on, and the bits,
            each code from its high bit on, in bytes filled from their low bits on.
    """

    order: tuple[int, ...]
    data: Bytes


def code_lengths(counts: Sequence[int], longest: int = MOST_LENGTH) -> tuple[int, ...]:
    """The bits of each symbol's code that make the total least; 0 for a symbol that does not occur.

    Args:
        counts: how often each symbol occurs.
        longest: bits that no code exceeds.

    Raises:
        DeployError: no symbol occurs, or they are too many for codes of that length.
    """
    leaves = sorted((count, symbol) for symbol, count in enumerate(counts) if count > 0)
    if not leaves:
        raise DeployError("no symbol occurs, so there is nothing to code", where="Huffman code")
    if len(leaves) > 1 << longest:
        fact = f"{len(leaves)} symbols have no codes of at most {longest} bits"
        raise DeployError(fact, where="Huffman code", hint="allow longer codes")
    lengths = [0] * len(counts)
    if len(leaves) == 1:
        lengths[leaves[0][1]] = 1
        return tuple(lengths)
    # Coins of every denomination: pairs of one become coins of the next, beside that one's own.
    own: list[tuple[int, tuple[int, ...]]] = [(count, (symbol,)) for count, symbol in leaves]
    row = own
    for _ in range(longest - 1):
        pairs = zip(row[::2], row[1::2], strict=False)
        packages = [(a[0] + b[0], a[1] + b[1]) for a, b in pairs]
        row = sorted([*own, *packages], key=lambda coin: coin[0])
    for _, symbols in row[: 2 * len(leaves) - 2]:
        for symbol in symbols:
            lengths[symbol] += 1
    return tuple(lengths)


def encode(symbols: Bytes, alphabet: int) -> Coded:
    """Codes symbols below `alphabet`, uint8 of any shape, in C order.

    Raises:
        DeployError: there are none, one is not below `alphabet`, or that exceeds 128.
    """
    flat = symbols.reshape(-1)
    if alphabet > _MOST_SYMBOLS or (flat.size and int(flat.max()) >= alphabet):
        fact = f"symbols up to {int(flat.max(initial=0))} of an alphabet of {alphabet}"
        raise DeployError(
            fact, where="Huffman code", hint=f"at most {_MOST_SYMBOLS}, each below their number"
        )
    lengths = code_lengths(np.bincount(flat, minlength=alphabet).tolist())
    order = sorted(range(alphabet), key=lambda s: (lengths[s] == 0, lengths[s], s))
    counts = np.bincount(lengths)[1:]
    if int(counts.sum()) == 1 or not lengths:
        counts = np.array([2])
    used = np.array([lengths[s] for s in order if lengths[s]])
    rank = np.empty(alphabet, np.int64)
    rank[order] = np.arange(alphabet)
    bits = _bits(_codes(used), used, rank[flat])
    head = np.array([len(counts), *counts], np.uint8)
    return Coded(tuple(order), np.concatenate([head, np.packbits(bits, bitorder="little")]))


def _codes(lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Canonical codes of ascending lengths: each the one before plus 1, and zeros behind where longer."""
    codes = np.zeros(len(lengths), np.int64)
    for i in range(1, len(lengths)):
        codes[i] = (codes[i - 1] + 1) << (lengths[i] - lengths[i - 1])
    return codes


def _bits(
    codes: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64], ranks: npt.NDArray[np.int64]
) -> Bytes:
    """The bits of the codes of ranks, one an element."""
    each = lengths[ranks]
    place = np.arange(int(lengths.max()))
    shift = np.maximum(each[:, None] - 1 - place, 0)
    bits = (codes[ranks][:, None] >> shift & 1).astype(np.uint8)
    return np.asarray(bits[place < each[:, None]])


def decode(data: Bytes, count: int) -> Bytes:
    """The ranks of `count` symbols, uint8, by the steps of td_kernels_huffman.h.

    Raises:
        DeployError: the bits end early, or are no code.
    """
    head = int(data[0]) if data.size else 0
    counts = data[1 : 1 + head].tolist()
    bits = iter(np.unpackbits(data[1 + head :], bitorder="little").tolist())
    ranks = np.zeros(count, np.uint8)
    for i in range(count):
        place = rank = 0
        for codes in counts:
            bit = next(bits, None)
            if bit is None:
                raise DeployError(f"the bits end at symbol {i} of {count}", where="Huffman code")
            # `place` counts from the first code of this length.
            place = 2 * place + bit
            if place < codes:
                ranks[i] = rank + place
                break
            place -= codes
            rank += codes
        else:
            raise DeployError(f"the bits at symbol {i} are no code", where="Huffman code")
    return ranks
