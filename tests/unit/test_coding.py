"""Which indices are Huffman-coded: those that save flash, as far as the RAM goes, and none for nothing."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from tinydeploy.plan.coding import (
    CALL_BYTES,
    DECODER_BYTES,
    START_BYTES,
    STREAM,
    WORDS,
    Codable,
    code_bytes,
    saved_bytes,
    worth_coding,
)

CODABLE = st.builds(
    lambda layout, packed, share: Codable(layout, packed, round(packed * share), packed),
    st.sampled_from([STREAM, WORDS]),
    st.integers(1, 3000),
    st.floats(0.2, 1.1),
)


def test_nothing_to_code_is_nothing() -> None:
    assert worth_coding([]) == ()
    assert code_bytes([]) == 0


def test_a_saving_below_the_decoder_is_none() -> None:
    decoder = DECODER_BYTES[STREAM] + START_BYTES + CALL_BYTES
    assert worth_coding([Codable(STREAM, 1000 + decoder, 1000, 1000)]) == ()
    assert worth_coding([Codable(STREAM, 1001 + decoder, 1000, 1000)]) == (0,)


def test_a_layer_that_saves_nothing_stays_packed_beside_one_that_does() -> None:
    found = [Codable(STREAM, 4000, 2000, 4000), Codable(STREAM, 300, 299, 300)]
    assert worth_coding(found) == (0,)


def test_a_second_decoder_has_to_earn_its_code() -> None:
    much = Codable(STREAM, 4000, 2000, 4000)
    little = Codable(WORDS, 1000, 1000 - DECODER_BYTES[WORDS], 1000)
    assert worth_coding([much, little]) == (0,)
    enough = Codable(WORDS, 1000, 999 - DECODER_BYTES[WORDS] - CALL_BYTES, 1000)
    assert worth_coding([much, enough]) == (0, 1)


def test_with_little_ram_the_best_ratio_comes_first() -> None:
    # 0.3, 0.6 and 0.45 bytes of flash for a byte of RAM.
    shares = (0.3, 0.6, 0.45)
    found = [Codable(STREAM, 4000, round(4000 * (1 - share)) - CALL_BYTES, 4000) for share in shares]
    assert worth_coding(found, 12_000) == (0, 1, 2)
    assert worth_coding(found, 11_999) == (1, 2)
    assert worth_coding(found, 7_999) == (1,)
    assert worth_coding(found, 3_999) == ()
    assert worth_coding(found, -5) == ()


def test_a_layer_that_is_too_large_does_not_keep_out_a_smaller_one() -> None:
    found = [Codable(STREAM, 9000, 2000, 9000), Codable(STREAM, 3000, 1500, 3000)]
    assert worth_coding(found, 4000) == (1,)


@given(st.lists(CODABLE, max_size=7), st.one_of(st.none(), st.integers(-10, 8000)))
@settings(deadline=None)
def test_a_choice_saves_flash_and_keeps_the_ram(found: list[Codable], ram: int | None) -> None:
    chosen = [found[i] for i in worth_coding(found, ram)]
    assert not chosen or saved_bytes(chosen) > 0
    assert not chosen or ram is None or sum(c.ram for c in chosen) <= ram


@given(st.lists(CODABLE, max_size=7))
@settings(deadline=None)
def test_with_ram_enough_no_choice_saves_more(found: list[Codable]) -> None:
    subsets = [s for n in range(len(found) + 1) for s in combinations(found, n)]
    chosen = [found[i] for i in worth_coding(found)]
    assert saved_bytes(chosen) == max(saved_bytes(s) for s in subsets)
