"""Data files: what is accepted, how it is converted, and what is refused."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from graphs import single_op_graph

from tinydeploy.data import fit_samples, random_samples, read_dataset
from tinydeploy.errors import DeployError
from tinydeploy.ir.graph import Graph
from tinydeploy.ops.quantize import quantize_array


@pytest.fixture
def graph() -> Graph:
    return single_op_graph("CONV_2D", 1)


def saved(folder: Path, **arrays: np.ndarray) -> Path:
    path = folder / "data.npz"
    np.savez(path, **arrays)
    return path


def shape_of(graph: Graph) -> tuple[int, ...]:
    return graph.value(graph.inputs[0]).shape


def test_data_of_the_inputs_own_type_goes_in_as_it_is(graph: Graph, tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(-128, 128, (3, *shape_of(graph)[1:])).astype(np.int8)
    samples = fit_samples(graph, read_dataset(saved(tmp_path, x=x)))
    assert np.array_equal(samples.inputs[0].reshape(x.shape), x)


def test_float_data_is_quantized_half_away_from_zero(graph: Graph, tmp_path: Path) -> None:
    value = graph.value(graph.inputs[0])
    x = np.random.default_rng(0).normal(0, 20 * value.quant.scale, (3, *value.shape[1:])).astype(np.float32)
    samples = fit_samples(graph, read_dataset(saved(tmp_path, x=x)))
    expected = quantize_array(x, value.quant, value.dtype)
    assert np.array_equal(samples.inputs[0].reshape(x.shape), expected)
    units = x.astype(np.float64) / value.quant.scale
    by_hand = np.clip(np.sign(units) * np.floor(np.abs(units) + 0.5) + value.quant.zero_point, -128, 127)
    assert np.mean(by_hand != expected) < 0.001


def test_other_integers_are_scaled_and_shifted_first(graph: Graph, tmp_path: Path) -> None:
    value = graph.value(graph.inputs[0])
    x = np.random.default_rng(0).integers(0, 256, (2, *value.shape[1:])).astype(np.uint8)
    scaled = fit_samples(graph, read_dataset(saved(tmp_path, x=x)), scale=0.5, mean=128)
    real = (0.5 * (x.astype(np.float32) - 128)).astype(np.float32)
    assert np.array_equal(scaled.inputs[0].reshape(x.shape), quantize_array(real, value.quant, value.dtype))


def test_more_than_one_percent_of_saturated_values_is_a_warning(graph: Graph, tmp_path: Path) -> None:
    x = np.full((1, *shape_of(graph)[1:]), 1e6, np.float32)
    assert "saturate" in fit_samples(graph, read_dataset(saved(tmp_path, x=x))).warnings[0]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(graph: Graph, tmp_path: Path, bad: float) -> None:
    x = np.full((1, *shape_of(graph)[1:]), bad, np.float32)
    with pytest.raises(DeployError, match="NaN"):
        fit_samples(graph, read_dataset(saved(tmp_path, x=x)))


def test_a_wrong_shape_names_both_shapes(graph: Graph, tmp_path: Path) -> None:
    with pytest.raises(DeployError, match=r"\[2, 5\]"):
        fit_samples(graph, read_dataset(saved(tmp_path, x=np.zeros((2, 5), np.float32))))


def test_a_missing_x_names_what_is_there(graph: Graph, tmp_path: Path) -> None:
    with pytest.raises(DeployError, match="pictures"):
        fit_samples(graph, read_dataset(saved(tmp_path, pictures=np.zeros(1))))


def test_labels_of_another_number_are_refused(graph: Graph, tmp_path: Path) -> None:
    x = np.zeros((2, *shape_of(graph)[1:]), np.float32)
    with pytest.raises(DeployError, match="2 samples"):
        fit_samples(graph, read_dataset(saved(tmp_path, x=x, y=np.zeros(3, np.int64))))


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "objects.npz"
    np.savez(path, x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DeployError, match="Python objects"):
        read_dataset(path)


def test_a_header_that_promises_too_much_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (1 << 40,)}
    )
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", header.getvalue())
    with pytest.raises(DeployError, match="limit"):
        read_dataset(path)


def test_a_header_that_promises_more_than_there_is_is_refused(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.save(stream, np.zeros(100))
    path = tmp_path / "short.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", stream.getvalue()[:-8])
    with pytest.raises(DeployError, match="header says 800"):
        read_dataset(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY"])
def test_what_is_no_npz_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(content)
    with pytest.raises(DeployError, match="not a readable"):
        read_dataset(path)


def test_random_samples_are_seeded_and_end_in_both_extremes(graph: Graph) -> None:
    (first,), (second,) = random_samples(graph, 3, 7), random_samples(graph, 3, 7)
    assert np.array_equal(first, second)
    assert first.dtype == np.int8
    assert (first[3] == -128).all()
    assert (first[4] == 127).all()
