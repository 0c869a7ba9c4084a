"""Convolutions take their images in blocks; how many to a block changes nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from graphs import random_inputs, single_op_graph

from tinydeploy.engine import run
from tinydeploy.ops import convolution


@pytest.mark.parametrize("is_float", [True, False], ids=["float", "int8"])
@pytest.mark.parametrize(
    "given",
    [{}, {"groups": 2}, {"kernel": (1, 1)}, {"kernel": (1, 1), "groups": 2, "strides": (2, 2)}],
    ids=["3x3", "grouped", "1x1", "grouped 1x1"],
)
def test_the_size_of_a_block_changes_nothing(
    given: dict[str, Any], is_float: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = single_op_graph("CONV_2D", 2, is_float=is_float, **given)
    x = random_inputs(graph, 7)
    (whole,) = run(graph, x)
    for elements in (1, 4000):
        monkeypatch.setattr(convolution, "_BLOCK_ELEMENTS", elements)
        (blocks,) = run(graph, x)
        assert np.allclose(blocks, whole, atol=1e-5) if is_float else np.array_equal(blocks, whole)
