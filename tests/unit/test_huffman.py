"""Huffman codes: the shortest there are within a length, and back to the same symbols."""

from __future__ import annotations

import heapq
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinydeploy.errors import DeployError
from tinydeploy.plan.huffman import MOST_LENGTH, code_lengths, decode, encode

COUNTS = st.lists(st.integers(0, 5000), min_size=1, max_size=128).filter(any)


def huffmans_total(counts: list[int]) -> int:
    """Bits by Huffman's own way: the two smallest become one until one is left."""
    heap = [n for n in counts if n]
    heapq.heapify(heap)
    total = 0 if len(heap) > 1 else heap[0]
    while len(heap) > 1:
        both = heapq.heappop(heap) + heapq.heappop(heap)
        total += both
        heapq.heappush(heap, both)
    return total


def total(counts: list[int], lengths: tuple[int, ...]) -> int:
    return sum(n * length for n, length in zip(counts, lengths, strict=True))


def back(symbols: np.ndarray, alphabet: int) -> np.ndarray:
    coded = encode(symbols, alphabet)
    return np.array(coded.order, np.uint8)[decode(coded.data, symbols.size)]


def test_the_lengths_of_fibonaccis_numbers_rise_one_by_one() -> None:
    assert code_lengths([1, 1, 2, 3, 5, 8]) == (5, 5, 4, 3, 2, 1)


def test_a_bound_on_the_length_costs_what_it_must_and_no_more() -> None:
    """Of six symbols in at most three bits, the two that occur most have two."""
    assert code_lengths([1, 1, 2, 3, 5, 8], 3) == (3, 3, 3, 3, 2, 2)


def test_equal_counts_of_a_power_of_two_are_packed_integers() -> None:
    assert code_lengths([7] * 16) == (4,) * 16


@given(COUNTS)
@settings(deadline=None)
def test_no_code_is_shorter_in_all_and_every_place_of_the_tree_is_taken(counts: list[int]) -> None:
    lengths = code_lengths(counts)
    assert all((length > 0) == (n > 0) for length, n in zip(lengths, counts, strict=True))
    assert max(lengths) <= MOST_LENGTH
    if sum(n > 0 for n in counts) > 1:
        assert sum(Fraction(1, 1 << length) for length in lengths if length) == 1
    unbounded = code_lengths(counts, 127)
    assert total(counts, unbounded) == huffmans_total(counts)
    if max(unbounded) <= MOST_LENGTH:
        assert total(counts, lengths) == huffmans_total(counts)


@given(st.lists(st.integers(1, 60), min_size=2, max_size=6), st.integers(3, 5))
@settings(deadline=None)
def test_within_a_length_nothing_that_could_be_tried_is_shorter(counts: list[int], longest: int) -> None:
    """Every choice of lengths that leaves the tree whole, by brute force."""

    def best(rest: list[int], room: Fraction) -> float:
        if not rest:
            return 0
        found = [
            rest[0] * length + best(rest[1:], room - Fraction(1, 1 << length))
            for length in range(1, longest + 1)
            if room >= Fraction(1, 1 << length)
        ]
        return min(found, default=float("inf"))

    assert total(counts, code_lengths(counts, longest)) == best(counts, Fraction(1))


def test_a_chain_of_fibonaccis_numbers_is_cut_at_the_longest_code() -> None:
    counts = [1, 1]
    while len(counts) < 24:
        counts.append(counts[-1] + counts[-2])
    assert max(code_lengths(counts, 40)) == 23
    lengths = code_lengths(counts)
    assert max(lengths) == MOST_LENGTH
    assert sum(Fraction(1, 1 << length) for length in lengths) == 1


@given(st.integers(1, 128), st.integers(1, 600), st.floats(-2, 2), st.integers(0, 1 << 30))
@settings(deadline=None)
def test_symbols_come_back_whatever_their_distribution(
    alphabet: int, count: int, spread: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(alphabet, 10.0**spread))
    symbols = rng.choice(alphabet, count, p=shares).astype(np.uint8)
    assert np.array_equal(back(symbols, alphabet), symbols)


@pytest.mark.parametrize("alphabet", [1, 2, 16, 128])
def test_one_symbol_takes_one_bit_each(alphabet: int) -> None:
    symbols = np.full(77, alphabet - 1, np.uint8)
    assert np.array_equal(back(symbols, alphabet), symbols)
    # The number of lengths, a whole code of one bit, and 77 bits.
    assert encode(symbols, alphabet).data.tolist() == [1, 2] + [0] * 10


def test_the_shortest_codes_come_first_and_symbols_that_do_not_occur_last() -> None:
    symbols = np.array([5] * 50 + [2] * 20 + [0] * 10 + [7] * 9, np.uint8)
    coded = encode(symbols, 8)
    assert coded.order == (5, 2, 0, 7, 1, 3, 4, 6)
    assert coded.data[:4].tolist() == [3, 1, 1, 2]


def test_skewed_symbols_take_their_entropy_and_less_than_a_bit_more() -> None:
    rng = np.random.default_rng(0)
    symbols = rng.choice(16, 20_000, p=rng.dirichlet(np.full(16, 0.3))).astype(np.uint8)
    shares = np.bincount(symbols) / symbols.size
    entropy = -sum(p * np.log2(p) for p in shares if p > 0)
    bits = 8 * (encode(symbols, 16).data.size - MOST_LENGTH) / symbols.size
    assert entropy - 0.01 <= bits <= entropy + 1
    assert bits < 3.5


def test_nothing_cannot_be_coded() -> None:
    with pytest.raises(DeployError, match="no symbol occurs"):
        encode(np.zeros(0, np.uint8), 4)


def test_more_symbols_than_codes_are_refused() -> None:
    with pytest.raises(DeployError, match="9 symbols have no codes of at most 3 bits"):
        code_lengths([1] * 9, 3)


@pytest.mark.parametrize(("top", "alphabet"), [(4, 4), (1, 129)])
def test_a_symbol_outside_the_alphabet_is_refused(top: int, alphabet: int) -> None:
    with pytest.raises(DeployError, match=f"of an alphabet of {alphabet}"):
        encode(np.array([0, top], np.uint8), alphabet)


def test_bits_that_end_early_are_refused() -> None:
    symbols = np.random.default_rng(1).integers(0, 16, 100).astype(np.uint8)
    data = encode(symbols, 16).data
    with pytest.raises(DeployError, match=r"the bits end at symbol \d+ of 100"):
        decode(data[:-3], 100)
    with pytest.raises(DeployError, match="are no code"):
        decode(np.zeros(0, np.uint8), 1)
