"""Scales become ratios in double precision throughout, as in the TensorFlow Lite Micro that is the oracle.

A ratio computed in single instead of double precision changes an output only where the accumulator lies
within 2**-24 of a tie, which random models do not meet. These cases are made to lie there.
"""

from __future__ import annotations

import numpy as np
from interpreters import run_micro

from tinydeploy.backends.tflite import write_tflite
from tinydeploy.engine import run
from tinydeploy.ir.graph import Graph, Node
from tinydeploy.ir.types import DType, Quantization, Value, constant
from tinydeploy.numerics import Multiplier, quantize_ratio, requantize
from tinydeploy.ops import Activation, FullyConnected, Relu


def per_tensor(scale: float, zero_point: int = 0) -> Quantization:
    return Quantization((scale,), (zero_point,))


def near_ties(double: Multiplier, single: Multiplier, ratio: float) -> list[int]:
    """Accumulators that the two multipliers requantize differently, one for each output from 20 to 126."""
    found = []
    for q in range(20, 127):
        acc = int((q + 0.5) / ratio) + np.arange(-40, 40)
        a = requantize(acc, double.mantissa, double.exponent)
        b = requantize(acc, single.mantissa, single.exponent)
        found += [int(v) for v in acc[a != b][:1]]
    return found


def fully_connected(bias: list[int], scales: tuple[float, float, float]) -> Graph:
    """A layer whose weights are zero, so that the bias is the accumulator."""
    x, w, y = scales
    values = {
        "x": Value("x", DType.INT8, (1, 4), per_tensor(x)),
        "w": constant("w", np.zeros((len(bias), 4), np.int8), per_tensor(w)),
        "b": constant("b", np.array(bias, np.int32), per_tensor(float(np.float32(x * w)))),
        "y": Value("y", DType.INT8, (1, len(bias)), per_tensor(y)),
    }
    return Graph("ties", values, (Node("y", FullyConnected(), ("x", "w", "b"), ("y",)),), ("x",), ("y",))


def test_fully_connected_multiplies_its_scales_in_double_precision() -> None:
    rng = np.random.default_rng(0)
    compared = 0
    for _ in range(60):
        x, w = float(np.float32(rng.uniform(0.01, 0.9))), float(np.float32(rng.uniform(1e-4, 1e-2)))
        y = float(np.float32(x * w * rng.uniform(2e5, 4e6)))
        double = quantize_ratio(x * w / y)
        single = quantize_ratio(float(np.float32(x) * np.float32(w)) / y)
        bias = near_ties(double, single, x * w / y) if double != single else []
        if not bias:
            continue
        graph = fully_connected(bias, (x, w, y))
        inputs = [np.zeros((1, 1, 4), np.int8)]
        (ours,) = run(graph, inputs)
        (theirs,) = run_micro(write_tflite(graph), inputs)
        assert np.array_equal(ours.reshape(-1), np.asarray(theirs).reshape(-1))
        compared += len(bias)
    assert compared > 1000


def single_and_double(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Indices of scale pairs whose quotient differs enough between the precisions to change an output."""
    q = np.arange(0, 256)
    single = (x.astype(np.float32) / y.astype(np.float32)).astype(np.float64)
    distance = np.abs((single[:, None] * q) % 1.0 - 0.5)
    spread = np.abs(single - x / y)[:, None] * q
    return np.nonzero(((distance < spread) & (single[:, None] * q < 255)).any(axis=1))[0]


def test_relu_divides_its_scales_in_double_precision() -> None:
    rng = np.random.default_rng(1)
    x = rng.uniform(0.01, 0.1, 40_000).astype(np.float32).astype(np.float64)
    y = (x * rng.uniform(1.0, 3.0, 40_000)).astype(np.float32).astype(np.float64)
    compared = 0
    for i in single_and_double(x, y)[:20]:
        values = {
            "x": Value("x", DType.INT8, (1, 256), per_tensor(float(x[i]), -128)),
            "y": Value("y", DType.INT8, (1, 256), per_tensor(float(y[i]), -128)),
        }
        graph = Graph("relu", values, (Node("y", Relu(Activation.RELU), ("x",), ("y",)),), ("x",), ("y",))
        inputs = [np.arange(-128, 128).astype(np.int8).reshape(1, 1, 256)]
        (ours,) = run(graph, inputs)
        (theirs,) = run_micro(write_tflite(graph), inputs)
        assert np.array_equal(ours.reshape(-1), np.asarray(theirs).reshape(-1))
        compared += 1
    assert compared >= 5
