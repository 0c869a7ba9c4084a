"""Data sets in .npz files: opened without trust, fitted to a model's inputs, quantized where real."""

from __future__ import annotations

import math
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from tinydeploy.errors import DeployError
from tinydeploy.ir.graph import Border, Graph
from tinydeploy.ir.types import Array, Value
from tinydeploy.ops.quantize import quantize_array

MAX_ARRAY_BYTES = 1 << 31
SATURATION_WARNING = 0.01
_KINDS = "iufbUS"
_GIVEN = "the arrays given"


@dataclass(frozen=True)
class Dataset:
    """The arrays of a data file: `x` (or `x_0`, `x_1`, ... for several inputs) and perhaps `y`."""

    path: str
    arrays: dict[str, Array]

    def inputs(self, count: int) -> list[Array]:
        """One array per model input, samples first."""
        names = ["x"] if count == 1 else [f"x_{i}" for i in range(count)]
        missing = [n for n in names if n not in self.arrays]
        if missing:
            raise DeployError(
                f"has no array {missing[0]!r}; it holds {sorted(self.arrays)}",
                where=self.path,
                hint=f"save it with numpy.savez(FILE, {'=..., '.join(names)}=...), samples first",
            )
        return [self.arrays[n] for n in names]

    @property
    def labels(self) -> Array | None:
        return self.arrays.get("y")


@dataclass(frozen=True)
class Samples:
    """Data in the model's own types and shapes.

    Attributes:
        inputs: one array per graph input, of shape (samples, *value.shape).
        labels: `y` as it stands in the file, or None; values of the output's shape in the source model's
            layout are brought to the graph's.
        warnings: what the user should know about the conversion.
    """

    inputs: tuple[Array, ...]
    labels: Array | None
    warnings: tuple[str, ...]

    def __len__(self) -> int:
        return int(self.inputs[0].shape[0])


DataSource = str | os.PathLike[str] | Mapping[str, Array]
"""An .npz file, or the same arrays by the same names: `{"x": x, "y": y}`."""


def open_dataset(source: DataSource) -> Dataset:
    """The arrays of a file, or those that are given.

    Raises:
        DeployError: as `read_dataset`, or an array of something else than numbers or text.
    """
    if not isinstance(source, Mapping):
        return read_dataset(Path(source))
    arrays = {name: np.asarray(array) for name, array in source.items()}
    for name, array in arrays.items():
        if array.dtype.kind not in _KINDS:
            raise DeployError(
                f"has elements of type {array.dtype}, not numbers or text", where=f"{_GIVEN}: {name}"
            )
    return Dataset(_GIVEN, arrays)


def read_dataset(path: Path) -> Dataset:
    """Opens an .npz file; never unpickles, and checks every size before memory is taken.

    Raises:
        DeployError: no such file, no .npz, object arrays, or arrays beyond MAX_ARRAY_BYTES.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return Dataset(str(path), {i.filename[:-4]: _read(archive, i, path) for i in _members(archive)})
    except FileNotFoundError:
        raise DeployError("no such file", where=str(path)) from None
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error) as error:
        raise DeployError(
            f"is not a readable .npz file ({error})", where=str(path), hint="write it with numpy.savez"
        ) from None


def _members(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    return [i for i in archive.infolist() if i.filename.endswith(".npy")]


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> Array:
    where = f"{path}: {info.filename}"
    with archive.open(info) as stream:
        try:
            shape, fortran, dtype = _read_header(stream)
        except (ValueError, SyntaxError, TypeError) as error:
            raise DeployError(f"is no array ({error})", where=where) from None
        if dtype.hasobject:
            raise DeployError("holds Python objects, which are never loaded", where=where)
        size = math.prod(shape) * dtype.itemsize
        if size > MAX_ARRAY_BYTES or any(n < 0 for n in shape):
            raise DeployError(f"has {size} bytes; the limit is {MAX_ARRAY_BYTES}", where=where)
        if dtype.kind not in _KINDS:
            raise DeployError(f"has elements of type {dtype}, not numbers or text", where=where)
        data = stream.read(size + 1)
    if len(data) != size:
        raise DeployError(f"holds {len(data)} bytes where its header says {size}", where=where)
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    fmt = np.lib.format
    version = fmt.read_magic(stream)  # type: ignore[no-untyped-call]
    read = fmt.read_array_header_1_0 if version == (1, 0) else fmt.read_array_header_2_0
    shape, fortran, dtype = read(stream)  # type: ignore[no-untyped-call]
    return shape, fortran, dtype


def fit_samples(graph: Graph, data: Dataset, *, scale: float = 1.0, mean: float = 0.0) -> Samples:
    """Brings the data of a file into the model's types and shapes.

    Data is in the source model's layout (NCHW for a model from PyTorch) and becomes the graph's.

    Float data is in real units and is quantized; data of the input's own integer type goes in as it is;
    any other integers become `scale * (x - mean)` in real units first.

    Args:
        scale, mean: for integer data that is not of the input's own type.

    Raises:
        DeployError: an array does not fit an input, or holds NaN.
    """
    warnings: list[str] = []
    inputs = [
        _fit(
            graph.value(name),
            _to_held(graph.value(name), border, x, data.path),
            data.path,
            scale,
            mean,
            warnings,
        )
        for name, border, x in zip(
            graph.inputs, graph.input_borders, data.inputs(len(graph.inputs)), strict=True
        )
    ]
    if len({x.shape[0] for x in inputs}) != 1 or inputs[0].shape[0] == 0:
        raise DeployError("there is no sample, or the inputs differ in their number", where=data.path)
    labels = data.labels
    if labels is not None and (labels.ndim == 0 or labels.shape[0] != inputs[0].shape[0]):
        raise DeployError(f"y has the shape {labels.shape} for {inputs[0].shape[0]} samples", where=data.path)
    return Samples(tuple(inputs), _labels_to_held(graph, labels), tuple(warnings))


def source_outputs(graph: Graph, outputs: Sequence[Array]) -> tuple[Array, ...]:
    """What the engine returned, in the source model's layout: (samples, *source shape) each."""
    pairs = zip(outputs, graph.output_borders, strict=True)
    return tuple(y if b.layout is None else b.layout.to_source(y) for y, b in pairs)


def _to_held(value: Value, border: Border, x: Array, path: str) -> Array:
    if border.layout is None:
        return x
    shape = border.layout.shape
    return border.layout.to_held(_with_samples(value.name, shape, x, path), value.shape)


def _labels_to_held(graph: Graph, labels: Array | None) -> Array | None:
    """Labels are converted only where they are values of the one output, in the source's shape."""
    layout = graph.output_borders[0].layout
    if labels is None or layout is None or len(graph.outputs) != 1:
        return labels
    if labels.shape[1:] not in (layout.shape, layout.shape[1:]):
        return labels
    return layout.to_held(labels, graph.value(graph.outputs[0]).shape)


def _fit(value: Value, x: Array, path: str, scale: float, mean: float, warnings: list[str]) -> Array:
    shaped = _with_samples(value.name, value.shape, x, path)
    if shaped.dtype == value.dtype.numpy:
        if value.dtype.is_float:
            _require_finite(shaped, value, path)
        return shaped
    if shaped.dtype.kind not in "iufb":
        raise DeployError(f"x has elements of type {shaped.dtype}, not numbers", where=path)
    real = shaped.astype(np.float32)
    if shaped.dtype.kind != "f":
        real = np.float32(scale) * (real - np.float32(mean))
    _require_finite(real, value, path)
    if value.dtype.is_float:
        return real
    quantized = quantize_array(real, value.quant, value.dtype)
    low, high = value.dtype.limits
    units = real / np.float32(value.quant.scale) + value.quant.zero_point
    saturated = float(np.mean((units < low - 0.5) | (units > high + 0.5)))
    if saturated > SATURATION_WARNING:
        warnings.append(
            f"{path}: {saturated:.1%} of the values for input {value.name!r} saturate at its scale"
            f" {value.quant.scale:.6g} and zero point {value.quant.zero_point}; is the data in real units?"
            " (--input-scale and --input-mean change integer data)"
        )
    return quantized


def _require_finite(x: Array, value: Value, path: str) -> None:
    if not np.isfinite(x).all():
        raise DeployError(f"the data for input {value.name!r} holds NaN or infinity", where=path)


def _with_samples(name: str, shape: tuple[int, ...], x: Array, path: str) -> Array:
    """(samples, *shape), where the file may leave out the model's batch axis of 1."""
    if x.ndim >= 1 and x.shape[1:] == shape:
        return x
    if shape[:1] == (1,) and x.ndim >= 1 and x.shape[1:] == shape[1:]:
        return x.reshape(x.shape[0], *shape)
    expected = list(shape[1:] if shape[:1] == (1,) else shape)
    raise DeployError(
        f"x has the shape {list(x.shape)}, and input {name!r} takes [samples, *{expected}]",
        where=path,
        hint="put the samples first and keep the source model's layout",
    )


def random_samples(graph: Graph, count: int, seed: int) -> tuple[Array, ...]:
    """Seeded inputs for a model without data: uniform over the whole type, then all low and all high.

    Returns:
        One array per input, of shape (count + 2, *value.shape).
    """
    rng = np.random.default_rng(seed)
    inputs: list[Array] = []
    for name in graph.inputs:
        value = graph.value(name)
        shape = (count, *value.shape)
        if value.dtype.is_float:
            drawn = rng.standard_normal(shape)
            inputs.append(np.concatenate([drawn, *_constant(value, (-4.0, 4.0))]).astype(np.float32))
            continue
        low, high = value.dtype.limits
        drawn = rng.integers(low, high, shape, endpoint=True).astype(np.float64)
        inputs.append(np.concatenate([drawn, *_constant(value, (low, high))]).astype(value.dtype.numpy))
    return tuple(inputs)


def _constant(value: Value, levels: Sequence[float]) -> list[Array]:
    return [np.full((1, *value.shape), level) for level in levels]
