"""Seeded random graphs of one op: any shape, geometry, zero points and scales that its rule allows."""

from __future__ import annotations

from typing import Any

import numpy as np
from graphs import MAKERS, Shape, single_op_graph
from kernel_cases import tuned, with_input_scale

from tinydeploy.errors import DeployError
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import DType
from tinydeploy.ir.verify import verify
from tinydeploy.ops import Activation, Padding

KINDS = tuple(MAKERS)
SAME_SCALE = ("AVERAGE_POOL_2D", "MAX_POOL_2D", "PAD", "RESHAPE")
PROBABILITY = ("LOGISTIC", "SOFTMAX")


def random_case(kind: str, seed: int, *, extreme: bool = True) -> Graph:
    """A legal graph of `kind`; parameters that do not fit together are drawn again.

    Args:
        extreme: now and then an output scale that saturates every output, or none of its bits.
    """
    rng = np.random.default_rng((KINDS.index(kind), seed))
    for _ in range(100):
        try:
            graph = single_op_graph(kind, int(rng.integers(1 << 30)), **_parameters(kind, rng))
            graph = _numbers(graph, kind, rng, extreme)
            verify(graph)
        except DeployError:
            continue
        return graph
    raise AssertionError(f"no legal {kind} in 100 tries")


def _numbers(graph: Graph, kind: str, rng: np.random.Generator, extreme: bool) -> Graph:
    if kind in PROBABILITY:
        return with_input_scale(graph, 2.0 ** rng.uniform(-20, 2))
    if kind == "QUANTIZE":
        return tuned(graph, factor=2.0 ** rng.uniform(-3, 3))
    zero_point = int(rng.integers(-128, 128))
    if kind in SAME_SCALE:
        return tuned(graph, inputs=zero_point, output=zero_point)
    wide = rng.random() < 0.2 and extreme
    factor = 2.0 ** (rng.uniform(-16, 16) if wide else rng.uniform(-1, 1))
    return tuned(graph, inputs=zero_point, output=int(rng.integers(-128, 128)), factor=factor)


def _parameters(kind: str, rng: np.random.Generator) -> dict[str, Any]:
    def pick(*options: Any) -> Any:
        return options[int(rng.integers(len(options)))]

    def pair(high: int) -> tuple[int, int]:
        return int(rng.integers(1, high)), int(rng.integers(1, high))

    def shape(rank: int, high: int = 7) -> Shape:
        return tuple(int(n) for n in rng.integers(1, high, rank))

    activation = pick(*Activation)
    image = {"shape": (int(rng.integers(1, 3)), *shape(2, 12), int(rng.integers(1, 9)))}
    padding = pick("same", "valid", Padding(*(int(n) for n in rng.integers(0, 4, 4))))
    kernel = pick((1, 1), (3, 3), (5, 1), (10, 4), pair(6))
    window = {**image, "kernel": kernel, "strides": pair(4), "padding": padding, "activation": activation}
    linear = {"bias": bool(rng.random() < 0.8), "per_channel": bool(rng.random() < 0.7)}
    given: dict[str, Any]
    match kind:
        case "CONV_2D":
            groups = pick(1, 1, 2, 3)
            sizes = (*image["shape"][:3], groups * int(rng.integers(1, 6)))
            geometry = {"dilations": pair(4), "groups": groups, "outputs": groups * int(rng.integers(1, 7))}
            given = {**window, **linear, **geometry, "shape": sizes}
        case "DEPTHWISE_CONV_2D":
            given = {**window, **linear, "dilations": pair(4), "multiplier": pick(1, 1, 2, 3)}
        case "FULLY_CONNECTED":
            sizes = (*shape(2, 4), int(rng.integers(1, 40)))
            given = {
                **linear,
                "shape": sizes,
                "keep_dims": pick(True, False),
                "outputs": int(rng.integers(1, 12)),
                "activation": activation,
            }
        case "AVERAGE_POOL_2D" | "MAX_POOL_2D":
            given = window
        case "ADD" | "MUL":
            full = shape(int(rng.integers(1, 5)))
            shapes = tuple(tuple(int(n) if rng.random() < 0.7 else 1 for n in full) for _ in range(2))
            given = {"shapes": shapes, "activation": activation}
        case "CONCATENATION":
            rest, axis = shape(4, 5), int(rng.integers(4))
            sizes = [(*rest[:axis], int(n), *rest[axis + 1 :]) for n in rng.integers(1, 5, pick(1, 2, 3, 5))]
            given = {"shapes": sizes, "axis": axis, "equal_scales": pick(True, False)}
        case "PAD":
            rank = int(rng.integers(1, 5))
            sizes = tuple((int(a), int(b)) for a, b in rng.integers(0, 3, (rank, 2)))
            given = {"shape": shape(rank, 5), "paddings": sizes, "value": pick(None, 5.0)}
        case "MEAN":
            rank = int(rng.integers(1, 5))
            axes = tuple(i for i in range(rank) if rng.random() < 0.5) or (rank - 1,)
            given = {"shape": shape(rank, 9), "axes": axes, "keep_dims": pick(True, False)}
        case "SOFTMAX":
            given = {"shape": (*shape(pick(1, 2), 4), int(rng.integers(1, 200))), "beta": pick(1.0, 0.3)}
        case "RELU":
            rescale = pick(1.0, 2.0 ** rng.uniform(-4, 4))
            given = {"activation": pick(*list(Activation)[1:]), "shape": (1, 256), "rescale": rescale}
        case "QUANTIZE":
            types = pick((DType.UINT8, DType.INT8), (DType.INT8, DType.UINT8), (DType.INT8, DType.INT8))
            given = {"source": types[0], "target": types[1], "shape": (1, 256)}
        case _:
            given = {"shape": (1, 60)}
    return given
