"""A small float network in ONNX, and what onnxruntime.quantization makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper
from onnx_models import model

SHAPE = (3, 16, 16)


def f32(seed: int, *shape: int, scale: float = 1.0) -> Any:
    return np.random.default_rng(seed).normal(0, scale, shape).astype(np.float32)


def _node(kind: str, inputs: str, output: str, **attributes: Any) -> Any:
    return helper.make_node(kind, inputs.split(), [output], name=output, **attributes)


def float_network() -> bytes:
    """Residual, gated and concatenated branches, every pool, and a classifier; NCHW with a dynamic batch."""
    nodes = [
        _node("Conv", "x w1 b1", "c1", pads=[1, 1, 1, 1]),
        _node("Relu", "c1", "r1"),
        _node("Conv", "r1 w2 b2", "c2", pads=[1, 1, 1, 1], group=8),
        _node("Clip", "c2 lo hi", "r2"),
        _node("Conv", "r2 w3 b3", "c3"),
        _node("Add", "c3 r1", "a"),
        _node("Relu", "a", "ra"),
        _node("MaxPool", "ra", "mp", kernel_shape=[2, 2], strides=[2, 2]),
        _node("Conv", "mp w4 b4", "c4"),
        _node("Sigmoid", "c4", "sg"),
        _node("Mul", "c4 sg", "sw"),
        _node("Concat", "sw mp", "cc", axis=1),
        _node("AveragePool", "cc", "ap", kernel_shape=[2, 2], strides=[2, 2]),
        _node("GlobalAveragePool", "ap", "g"),
        _node("Flatten", "g", "f"),
        _node("Gemm", "f fw fb", "l", transB=1),
        _node("Softmax", "l", "y", axis=1),
    ]
    constants = {
        "w1": f32(1, 8, 3, 3, 3, scale=0.3),
        "b1": f32(2, 8, scale=0.3),
        "w2": f32(3, 8, 1, 3, 3, scale=0.4),
        "b2": f32(4, 8, scale=0.3),
        "w3": f32(5, 8, 8, 1, 1, scale=0.4),
        "b3": f32(6, 8, scale=0.3),
        "w4": f32(7, 6, 8, 1, 1, scale=0.3),
        "b4": f32(8, 6, scale=0.2),
        "fw": f32(9, 5, 14),
        "fb": f32(10, 5),
        "lo": np.float32(0),
        "hi": np.float32(6),
    }
    return model(nodes, {"x": ("N", *SHAPE)}, ["y"], constants)


def samples(count: int, seed: int = 500) -> Any:
    """(count, 1, C, H, W)."""
    return np.stack([f32(seed + i, 1, *SHAPE) for i in range(count)])


def quantized_network(folder: Path, *, qdq: bool, unsigned: bool, per_channel: bool) -> bytes:
    """`float_network` after onnxruntime.quantization.quantize_static."""
    quantization = pytest.importorskip("onnxruntime.quantization")

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            self.samples: Iterator[Any] = iter(samples(20, 100))

        def get_next(self) -> dict[str, Any] | None:
            x = next(self.samples, None)
            return None if x is None else {"x": x}

    source, result = folder / "float.onnx", folder / "int8.onnx"
    source.write_bytes(float_network())
    types = quantization.QuantType
    quantization.quantize_static(
        source,
        result,
        Reader(),
        quant_format=quantization.QuantFormat.QDQ if qdq else quantization.QuantFormat.QOperator,
        activation_type=types.QUInt8 if unsigned else types.QInt8,
        weight_type=types.QInt8,
        per_channel=per_channel,
    )
    return result.read_bytes()
