"""The stored forms below eight bits: what each holds, its size, and what the verifier refuses."""

from __future__ import annotations

import numpy as np
import pytest

from tinydeploy.ir.form_check import unfit
from tinydeploy.ir.forms import Codebook, Packed, Planes, Signs
from tinydeploy.ir.types import DType, Value, constant

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("bits", "limits", "stored"), [(2, (-2, 1), 3), (4, (-8, 7), 5), (7, (-64, 63), 8), (8, (-128, 127), 9)]
)
def test_packed_bits_bound_the_elements_and_set_the_bytes(
    bits: int, limits: tuple[int, int], stored: int
) -> None:
    data = np.resize(np.array(limits, np.int8), 9)
    value = constant("w", data, form=Packed(bits))
    assert unfit(value) is None
    assert (value.limits, value.bytes) == (limits, stored)


def test_an_activation_of_few_bits_keeps_one_byte_an_element() -> None:
    value = Value("x", DType.INT8, (1, 2, 2, 3), form=Packed(4))
    assert (value.limits, value.bytes) == ((-8, 7), 12)


def test_a_codebook_gives_back_its_elements() -> None:
    book = Codebook(2, (-90, -3, 4, 100))
    data = RNG.choice(np.array(book.table, np.int8), (3, 5))
    assert np.array_equal(np.array(book.table)[book.indices(data)], data)
    assert constant("w", data, form=book).bytes == 4 + 4


@pytest.mark.parametrize("axis", [0, 3])
def test_planes_sum_to_the_weights_along_their_axis(axis: int) -> None:
    signs = RNG.integers(-1, 2, (3, 2, 3, 3, 4)).astype(np.int8)
    coefficients = RNG.integers(-(2**15) + 1, 2**15, (3, signs.shape[axis + 1])).astype(np.int16)
    planes = Planes(signs, coefficients, axis)
    letters = "iohwc" if axis == 0 else "ihwco"
    wanted = np.einsum(f"{letters},io->{letters[1:]}", signs.astype(int), coefficients.astype(int))
    assert np.array_equal(planes.weights(), wanted)
    assert (planes.magnitudes() >= np.abs(wanted)).all()
    assert unfit(constant("w", planes.weights(), form=planes)) is None


def test_a_plane_without_zeros_takes_one_bit_and_with_zeros_two() -> None:
    signs = np.ones((1, 8, 4), np.int8)
    one = np.ones((1, 8), np.int16)
    assert (Planes(signs, one, 0).bits, Planes(signs, one, 0).stored_bytes((8, 4))) == (1, 4 + 16)
    assert Planes(np.where(np.eye(8, 4) > 0, 0, signs).astype(np.int8), one, 0).bits == 2


WRONG = {
    "an element beyond its bits": constant("w", np.array([8], np.int8), form=Packed(4)),
    "one bit, which is a plane's": constant("w", np.array([0], np.int8), form=Packed(1)),
    "float elements": constant("w", np.zeros(3, np.float32), form=Packed(4)),
    "an element that the codebook lacks": constant("w", np.array([5], np.int8), form=Codebook(1, (1, 2))),
    "a codebook out of order": constant("w", np.array([2], np.int8), form=Codebook(1, (2, 1))),
    "a codebook with more entries than indices": constant(
        "w", np.array([1], np.int8), form=Codebook(1, (1, 2, 3))
    ),
    "a codebook of an activation": Value("x", DType.INT8, (4,), form=Codebook(1, (1, 2))),
    "signs of a constant": constant("w", np.array([1], np.int8), form=Signs()),
    "a sum that is not the planes'": constant(
        "w", np.array([[3]], np.int32), form=Planes(np.ones((1, 1, 1), np.int8), np.ones((1, 1), np.int16), 0)
    ),
    "a sign of two": constant(
        "w",
        np.array([[2]], np.int32),
        form=Planes(np.full((1, 1, 1), 2, np.int8), np.ones((1, 1), np.int16), 0),
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_the_verifier_refuses(name: str) -> None:
    assert unfit(WRONG[name])
