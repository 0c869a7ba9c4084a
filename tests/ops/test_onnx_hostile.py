"""Files that lie, break off or ask for too much end in one DeployError that says what and where."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from graphs import every_op_graph
from onnx import TensorProto, helper, numpy_helper
from onnx_models import model, read
from onnx_networks import float_network

from tinydeploy.backends.onnx import write_onnx
from tinydeploy.errors import DeployError
from tinydeploy.frontends.onnx import read_onnx

COPIES = 400


def weights(*shape: int) -> Any:
    return np.random.default_rng(0).normal(0, 1, shape).astype(np.float32)


def simple() -> Any:
    """Conv, Relu, Flatten, Gemm, as a ModelProto to be edited."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="first", strides=[1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("Gemm", ["f", "v"], ["y"], name="last"),
    ]
    data = model(nodes, {"x": (1, 3, 6, 6)}, ["y"], {"w": weights(4, 3, 3, 3), "v": weights(64, 5)})
    return onnx.load_from_string(data)


def external(m: Any) -> None:
    tensor = m.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")


def subgraph(m: Any) -> None:
    body = helper.make_graph([helper.make_node("Identity", ["c"], ["z"])], "b", [], [])
    m.graph.node.insert(1, helper.make_node("If", ["c"], ["z"], then_branch=body, else_branch=body))
    m.graph.node[2].input[0] = "z"


def strings(m: Any) -> None:
    m.graph.initializer[1].CopyFrom(helper.make_tensor("v", TensorProto.STRING, [2], [b"a", b"b"]))


def not_finite(m: Any) -> None:
    data = weights(64, 5)
    data[3, 3] = np.nan
    m.graph.initializer[1].CopyFrom(numpy_helper.from_array(data, "v"))


def attribute(m: Any, node: int, **given: Any) -> None:
    del m.graph.node[node].attribute[:]
    m.graph.node[node].attribute.extend(helper.make_attribute(k, v) for k, v in given.items())


def function(m: Any) -> None:
    m.functions.add(name="f", domain="local")


def huge_constant(m: Any) -> None:
    m.graph.node.insert(0, helper.make_node("ConstantOfShape", ["many"], ["w2"]))
    m.graph.initializer.append(numpy_helper.from_array(np.array([1 << 20] * 3), "many"))
    m.graph.node[1].input[1] = "w2"


def two_writers(m: Any) -> None:
    m.graph.node[1].output[0] = m.graph.node[2].input[0] = "c"


def many_inputs(m: Any) -> None:
    m.graph.input.extend(helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, [1]) for i in range(99))


def same_weights_often(m: Any) -> None:
    """Each Gemm brings the same 16 million weights into form."""
    del m.graph.node[:], m.graph.initializer[:], m.graph.input[:]
    m.graph.input.append(helper.make_tensor_value_info("x0", TensorProto.FLOAT, [1, 4096]))
    m.graph.initializer.append(numpy_helper.from_array(np.array([4096, 4096]), "shape"))
    m.graph.node.append(helper.make_node("ConstantOfShape", ["shape"], ["w"]))
    names = [*(f"x{i}" for i in range(900)), "y"]
    m.graph.node.extend(helper.make_node("Gemm", [a, "w"], [b]) for a, b in pairwise(names))


def dimension(m: Any, index: int, value: int) -> None:
    m.graph.input[0].type.tensor_type.shape.dim[index].dim_value = value


def input_type(m: Any, number: int) -> None:
    m.graph.input[0].type.tensor_type.elem_type = number


def rename(m: Any, name: bytes) -> bytes:
    return bytes(m.SerializeToString()).replace(b"first", name)


CASES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "no graph": (lambda m: m.ClearField("graph"), "no graph"),
    "no opset": (lambda m: m.ClearField("opset_import"), "operator set unknown"),
    "opset 9": (lambda m: setattr(m.opset_import[0], "version", 9), r"operator set \[9\]"),
    "opset 99": (lambda m: setattr(m.opset_import[0], "version", 99), "11 to 25"),
    "external data": (external, "never opened"),
    "functions": (function, "functions of its own"),
    "subgraph": (subgraph, "not supported"),
    "sparse": (lambda m: m.graph.sparse_initializer.add(), "sparse"),
    "strings": (strings, "element type number 8"),
    "NaN": (not_finite, "NaN"),
    "negative dimension": (lambda m: m.graph.initializer[0].dims.__setitem__(0, -4), "out of range"),
    "huge dimension": (lambda m: m.graph.initializer[0].dims.__setitem__(0, 1 << 62), "out of range"),
    "wrong dimension": (lambda m: m.graph.initializer[0].dims.__setitem__(0, 5), "bytes for shape"),
    "many axes": (lambda m: m.graph.initializer[0].dims.extend([1] * 9), "axes"),
    "no data": (lambda m: m.graph.initializer[0].ClearField("raw_data"), "0 values"),
    "twice": (lambda m: m.graph.initializer.append(m.graph.initializer[0]), "stands twice"),
    "cycle": (lambda m: m.graph.node[0].input.__setitem__(0, "r"), "nothing in front of it gives"),
    "unknown tensor": (lambda m: m.graph.node[1].input.__setitem__(0, "q"), "reads 'q'"),
    "two writers": (two_writers, "something else gives"),
    "missing input": (lambda m: m.graph.node[0].input.pop(), "input 1 is missing"),
    "no inputs": (lambda m: m.graph.node[1].ClearField("input"), "input 0 is missing"),
    "computed weights": (lambda m: m.graph.node[0].input.__setitem__(1, "x"), "only a constant"),
    "output that nothing gives": (lambda m: setattr(m.graph.output[0], "name", "n"), "nothing computes"),
    "output that is a constant": (lambda m: setattr(m.graph.output[0], "name", "w"), "is a constant"),
    "attribute type": (lambda m: attribute(m, 0, strides="ab"), "no list of integers"),
    "attribute length": (lambda m: attribute(m, 0, strides=[1, 1, 1]), "has 3 elements"),
    "attribute twice": (lambda m: m.graph.node[0].attribute.extend(list(m.graph.node[0].attribute)), "twice"),
    "strides of zero": (lambda m: attribute(m, 0, strides=[0, 1]), "out of range"),
    "negative pads": (lambda m: attribute(m, 0, pads=[-1, 0, 0, 0]), "out of range"),
    "giant pads": (lambda m: attribute(m, 0, pads=[1 << 40, 0, 0, 0]), "out of range"),
    "giant output": (lambda m: attribute(m, 0, pads=[65536] * 4), "beyond the limit"),
    "giant dilations": (lambda m: attribute(m, 0, dilations=[1 << 16, 1]), "does not fit"),
    "groups": (lambda m: attribute(m, 0, group=-1), "groups"),
    "axis": (lambda m: attribute(m, 2, axis=77), "axis 77"),
    "giant input": (lambda m: dimension(m, 2, 1 << 40), "unusable shape"),
    "unknown height": (lambda m: dimension(m, 2, 0), "only the batch may be dynamic"),
    "input of strings": (lambda m: input_type(m, 8), "element type number 8"),
    "float64 input": (lambda m: input_type(m, 11), "float64"),
    "sequence input": (lambda m: m.graph.input[0].type.ClearField("tensor_type"), "no tensor"),
    "huge constant": (huge_constant, "out of range"),
    "many inputs": (many_inputs, "limit is 16"),
    "the same weights often": (same_weights_often, "brought into form"),
    "no UTF-8": (lambda m: rename(m, b"\xff\xfe\xfd\xfc\xfb"), "no UTF-8"),
    "cut off": (lambda m: m.SerializeToString()[:-40], "protobuf"),
    "text": (lambda m: b"this is no model", "protobuf"),
    "empty": (lambda m: b"", "no graph"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_damaged_or_hostile_file_is_refused(case: str) -> None:
    edit, message = CASES[case]
    proto = simple()
    data = edit(proto)
    with pytest.raises(DeployError, match=message) as caught:
        read(data if isinstance(data, bytes) else proto.SerializeToString())
    assert str(caught.value).startswith("test.onnx")


def test_every_unsupported_operator_is_listed_at_once() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
        helper.make_node("Erf", ["c"], ["e"], name="odd"),
        helper.make_node("Relu", ["e"], ["r"]),
        helper.make_node("Clip", ["c", "low", "high"], ["k"], name="clip"),
        helper.make_node("Add", ["r", "k"], ["a"]),
        helper.make_node("Gelu", ["a"], ["y"], name="other", domain="com.example"),
    ]
    constants = {"w": weights(4, 3, 3, 3), "low": np.float32(-2), "high": np.float32(3)}
    with pytest.raises(DeployError, match="3 of 6 operators") as caught:
        read(model(nodes, {"x": (1, 3, 6, 6)}, ["y"], constants))
    lines = str(caught.value).splitlines()
    assert lines[1].strip() == "node 1 Erf 'odd': is not supported"
    assert lines[2].strip().startswith("node 3 Clip 'clip': a clip to [-2.0, 3.0]")
    assert lines[3].strip() == "node 5 com.example:Gelu 'other': is not supported"
    assert "supported are Add" in caught.value.hint


def test_operators_that_no_output_needs_do_not_matter() -> None:
    proto = simple()
    proto.graph.node.append(helper.make_node("Erf", ["y"], ["unused"]))
    assert read(proto.SerializeToString()).outputs == ("y",)


def test_external_data_is_never_opened(tmp_path: Path) -> None:
    """The file beside the model exists and is left alone."""
    proto = simple()
    tensor = proto.graph.initializer[0]
    (tmp_path / "weights.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(DeployError, match="never opened"):
        read_onnx(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DeployError, match="cannot be read") as caught:
        read_onnx(tmp_path / "none.onnx")
    assert "none.onnx" in caught.value.where


def damaged(data: bytes, seed: int) -> bytes:
    """A truncated copy, one with flipped bits, or one with a stretch of noise."""
    rng = random.Random(seed)
    copy = bytearray(data)
    match rng.randrange(3):
        case 0:
            return bytes(copy[: rng.randrange(len(copy))])
        case 1:
            for _ in range(rng.randint(1, 8)):
                copy[rng.randrange(len(copy))] ^= 1 << rng.randrange(8)
        case _:
            start = rng.randrange(len(copy))
            for i in range(start, min(start + 8, len(copy))):
                copy[i] = rng.randrange(256)
    return bytes(copy)


@pytest.mark.parametrize("kind", ["qdq", "float", "other"])
def test_damaged_copies_raise_nothing_else(kind: str) -> None:
    data = float_network() if kind == "other" else write_onnx(every_op_graph(3, is_float=kind == "float"))
    refused = 0
    for seed in range(COPIES):
        try:
            read(damaged(data, seed))
        except DeployError:
            refused += 1
    assert refused > COPIES // 4
