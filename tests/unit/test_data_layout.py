"""Data is in the source model's layout; the graph inside is NHWC."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from graphs import single_op_graph

from tinydeploy.data import fit_samples, read_dataset, source_outputs
from tinydeploy.engine import run
from tinydeploy.errors import DeployError
from tinydeploy.ir.graph import Border, Graph, Layout


@pytest.fixture
def graph() -> Graph:
    """A float convolution whose source has NCHW at both ends."""
    plain = single_op_graph("CONV_2D", 1, is_float=True)

    def border(name: str) -> Border:
        n, h, w, c = plain.value(name).shape
        return Border(name, False, Layout((n, c, h, w), (n, c, h, w), (0, 2, 3, 1)))

    return replace(
        plain,
        input_borders=(border(plain.inputs[0]),),
        output_borders=(border(plain.outputs[0]),),
    )


def saved(folder: Path, **arrays: np.ndarray) -> Path:
    path = folder / "data.npz"
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("batch_axis", [True, False])
def test_x_and_y_in_nchw_reach_the_graph_as_nhwc(graph: Graph, tmp_path: Path, batch_axis: bool) -> None:
    x = np.random.default_rng(0).normal(0, 1, (3, 1, 4, 7, 6)).astype(np.float32)
    held = np.ascontiguousarray(x.transpose(0, 1, 3, 4, 2))
    y = run(graph, [held])[0]
    source_y = y.transpose(0, 1, 4, 2, 3)
    if not batch_axis:
        x, source_y = x[:, 0], source_y[:, 0]
    samples = fit_samples(graph, read_dataset(saved(tmp_path, x=x, y=source_y)))
    assert np.array_equal(samples.inputs[0], held)
    assert samples.inputs[0].flags.c_contiguous
    assert samples.labels is not None
    assert np.array_equal(samples.labels, y)


def test_outputs_go_back_to_the_source_layout(graph: Graph) -> None:
    x = np.random.default_rng(0).normal(0, 1, (3, 1, 7, 6, 4)).astype(np.float32)
    outputs = run(graph, [x])
    (back,) = source_outputs(graph, outputs)
    assert np.array_equal(back, outputs[0].transpose(0, 1, 4, 2, 3))


def test_class_numbers_stay_as_they_are(graph: Graph, tmp_path: Path) -> None:
    x = np.zeros((3, 4, 7, 6), np.float32)
    samples = fit_samples(graph, read_dataset(saved(tmp_path, x=x, y=np.arange(3))))
    assert samples.labels is not None
    assert samples.labels.tolist() == [0, 1, 2]


def test_nhwc_data_for_an_nchw_model_is_refused_with_the_shape_it_takes(graph: Graph, tmp_path: Path) -> None:
    with pytest.raises(DeployError, match=r"\[samples, \*\[4, 7, 6\]\]"):
        fit_samples(graph, read_dataset(saved(tmp_path, x=np.zeros((3, 7, 6, 4), np.float32))))


@pytest.mark.parametrize(
    ("layout", "held"),
    [
        (Layout((1, 3, 4, 5), (1, 3, 4, 5), (0, 2, 3, 1)), (1, 4, 5, 3)),
        (Layout((1, 60), (1, 3, 4, 5), (0, 2, 3, 1)), (1, 4, 5, 3)),
        (Layout((1, 6, 10), (1, 6, 10), (0, 2, 1)), (1, 1, 10, 6)),
    ],
)
def test_a_layout_there_and_back_changes_nothing(layout: Layout, held: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).normal(0, 1, (2, *layout.shape))
    y = layout.to_held(x, held)
    assert y.shape == (2, *held)
    assert np.array_equal(layout.to_source(y), x)
