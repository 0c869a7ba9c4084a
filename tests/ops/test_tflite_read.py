"""What the TFLite reader makes of each operator, and what it refuses with which words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graphs import GraphBuilder, every_op_graph, pad, reshape, single_op_graph, softmax
from tflite_edit import edit, new_file, schema

from tinydeploy import ops
from tinydeploy.backends.tflite import write_tflite
from tinydeploy.backends.tflite_model import Code
from tinydeploy.engine import run
from tinydeploy.errors import DeployError
from tinydeploy.frontends.tflite import parse_tflite, read_tflite
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import DType, Quantization
from tinydeploy.ir.verify import graph_macs
from tinydeploy.ops import Activation

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
REFERENCES = {
    "ic_int8": (16, 12501632),
    "kws_int8": (13, 2656768),
    "vww_int8": (31, 7489664),
    "ad_int8": (10, 264192),
    "sww_int8": (11, 826368),
}
Q = Quantization((0.5,), (3,))
INT8 = DType.INT8


def reference(name: str) -> Path:
    path = DATA / "models" / f"{name}.tflite"
    if not path.exists():
        pytest.skip(f"the reference model {path.name} is not there")
    return path


def parse(data: bytes) -> Graph:
    return parse_tflite(data, "m", "model.tflite")


def refusal(data: bytes) -> DeployError:
    with pytest.raises(DeployError) as caught:
        parse(data)
    assert caught.value.where.startswith("model.tflite")
    return caught.value


def one_operator(
    kind: str,
    shape: tuple[int, ...],
    output: tuple[int, ...],
    parameters: Sequence[Any] = (),
    options: Any = None,
) -> bytes:
    """A model of one operator from int8 `x` to int8 `y`, with constants behind the input."""
    file = new_file()
    x = file.tensor("x", INT8, shape, Q)
    y = file.tensor("y", INT8, output, Q)
    numbers = [file.parameter(f"p{i}", np.array(p)) for i, p in enumerate(parameters)]
    file.operator(Code(kind, 1), [x, *numbers], y, options)
    return file.serialize([x], [y])


def op_of(data: bytes) -> Any:
    (node,) = parse(data).nodes
    return node.op


@pytest.mark.parametrize("name", REFERENCES)
def test_a_reference_model_is_read(name: str) -> None:
    graph = read_tflite(reference(name))
    assert (len(graph.nodes), graph_macs(graph)) == REFERENCES[name]
    assert graph.name == name
    assert graph.is_integer


@pytest.mark.parametrize("name", REFERENCES)
def test_a_reference_model_computes_what_tensorflow_lite_micro_computes(name: str) -> None:
    graph = read_tflite(reference(name))
    with np.load(DATA / "golden" / f"{name}.npz") as golden:
        x, expected = golden["x"], golden["y_tflm"]
    (result,) = run(graph, [x.reshape(-1, *graph.value(graph.inputs[0]).shape)])
    assert np.array_equal(result.reshape(expected.shape), expected)


@pytest.mark.parametrize("name", ["ic_float", "kws_float32", "vww_float", "ad_float"])
def test_a_float_reference_model_is_read(name: str) -> None:
    graph = read_tflite(reference(name))
    assert not graph.is_integer
    assert all(v.dtype is DType.FLOAT32 for v in graph.values.values())


def test_a_hybrid_model_is_refused() -> None:
    path = reference("kws_float")
    with pytest.raises(DeployError, match="hybrid"):
        read_tflite(path)


def test_all_unsupported_operators_are_listed_in_one_message() -> None:
    file = new_file()
    names = [file.tensor(n, INT8, (1, 4), Q) for n in ("x", "a", "b", "c", "d")]
    for code, i in (("ABS", 0), ("RELU", 1), ("NEG", 2), ("CUSTOM", 3)):
        file.operator(Code(code, 1), [names[i]], names[i + 1])

    def name_custom(model: Any) -> None:
        model.operatorCodes[3].customCode = "Fancy"

    error = refusal(edit(file.serialize(names[:1], names[4:]), name_custom))
    assert "3 of 4 operators" in error.fact
    assert "operator 0 ABS (output 'a')" in error.fact
    assert "operator 2 NEG (output 'c')" in error.fact
    assert "operator 3 CUSTOM 'Fancy' (output 'd')" in error.fact
    assert "CONV_2D" in error.hint


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DeployError, match="cannot be read"):
        read_tflite(tmp_path / "none.tflite")
    with pytest.raises(DeployError, match="cannot be read"):
        read_tflite(tmp_path)


def test_several_subgraphs_are_refused_by_name() -> None:
    def twice(model: Any) -> None:
        model.subgraphs = [model.subgraphs[0]] * 2

    error = refusal(edit(write_tflite(single_op_graph("ADD")), twice))
    assert "2 subgraphs" in error.fact
    assert "'main'" in error.fact


def test_repeated_and_missing_tensor_names_become_unique() -> None:
    def rename(model: Any) -> None:
        for tensor, name in zip(model.subgraphs[0].tensors, ("x", "x", None), strict=True):
            tensor.name = name

    graph = parse(edit(write_tflite(single_op_graph("ADD")), rename))
    assert list(graph.values) == ["x", "x_1", "tensor_2"]
    assert graph.nodes[0].name == graph.nodes[0].outputs[0]


def test_an_unknown_batch_is_one() -> None:
    def unknown(model: Any) -> None:
        for tensor in model.subgraphs[0].tensors:
            tensor.shape = np.array([-1, *tensor.shape[1:]], np.int32)

    graph = parse(edit(write_tflite(single_op_graph("ADD")), unknown))
    assert {v.shape[0] for v in graph.values.values()} == {1}


def test_an_unknown_size_elsewhere_is_refused() -> None:
    def unknown(model: Any) -> None:
        model.subgraphs[0].tensors[0].shape = np.array([1, -1, 4, 3], np.int32)

    error = refusal(edit(write_tflite(single_op_graph("ADD")), unknown))
    assert "input_0" in error.fact
    assert "unknown shape" in error.fact


def test_nodes_that_no_output_needs_are_dropped() -> None:
    b = GraphBuilder(0)
    x = b.input((1, 4))
    unused = reshape(b, x=x, to=(4,))
    graph = parse(write_tflite(b.graph(softmax(b, x=x))))
    assert [n.op.kind for n in graph.nodes] == ["SOFTMAX"]
    assert unused.name not in graph.values


def test_parameter_tensors_do_not_become_values() -> None:
    graph = parse(write_tflite(single_op_graph("PAD")))
    assert set(graph.values) == {"input_0", "pad_0"}


@pytest.mark.parametrize(("kind", "code"), [("RELU", 19), ("RELU6", 21), ("RELU_N1_TO_1", 20)])
def test_the_relu_family_is_one_op(kind: str, code: int) -> None:
    assert getattr(schema.BuiltinOperator, kind) == code
    assert op_of(one_operator(kind, (1, 4), (1, 4))) == ops.Relu(Activation[kind])


def test_squeeze_and_expand_dims_are_reshapes() -> None:
    assert op_of(one_operator("SQUEEZE", (1, 4, 1), (4,))) == ops.Reshape((4,))
    axis = [np.array(0, np.int32)]
    assert op_of(one_operator("EXPAND_DIMS", (4,), (1, 4), axis)) == ops.Reshape((1, 4))


def test_a_reshape_takes_the_output_shape_and_checks_the_shape_input() -> None:
    for stated in ([-1, 4], [2, 4], [2, -1]):
        assert op_of(one_operator("RESHAPE", (8,), (2, 4), [np.array(stated, np.int32)])) == ops.Reshape(
            (2, 4)
        )
    error = refusal(one_operator("RESHAPE", (8,), (2, 4), [np.array([4, 2], np.int32)]))
    assert "(4, 2)" in error.fact
    assert "'y'" in error.where


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_paddings_are_of_either_integer_type(dtype: Any) -> None:
    widths = np.array([[0, 1], [2, 3]], dtype)
    assert op_of(one_operator("PAD", (1, 4), (2, 9), [widths])) == ops.Pad(((0, 1), (2, 3)))


def test_padv2_has_a_fill_in_the_tensor_s_own_units() -> None:
    parameters = [np.array([[0, 0], [1, 1]], np.int32), np.array([-7], np.int8)]
    assert op_of(one_operator("PADV2", (1, 4), (1, 6), parameters)) == ops.Pad(((0, 0), (1, 1)), -7)


def test_negative_paddings_are_refused() -> None:
    error = refusal(one_operator("PAD", (1, 4), (1, 4), [np.array([[0, 0], [-1, 1]], np.int32)]))
    assert "out of range" in error.fact


@pytest.mark.parametrize("axes", [[-2, 1], [2, 1, -3], [1, 2], [[2], [1]]])
def test_the_axes_of_a_mean_are_normalised_sorted_and_unique(axes: Any) -> None:
    data = one_operator("MEAN", (1, 3, 4, 2), (1, 2), [np.array(axes, np.int32)])
    assert op_of(data) == ops.Mean((1, 2))


def test_an_axis_that_the_input_does_not_have_is_refused() -> None:
    assert "axes" in refusal(one_operator("MEAN", (1, 3), (1,), [np.array([2], np.int32)])).fact


def test_a_negative_concatenation_axis_is_counted_from_the_end() -> None:
    options = schema.ConcatenationOptionsT()
    options.axis = -1
    assert op_of(one_operator("CONCATENATION", (1, 4), (1, 4), options=options)) == ops.Concatenation(1)


def test_absent_options_mean_the_schema_s_defaults() -> None:
    data = one_operator("MEAN", (1, 3, 2), (1, 2), [np.array([1], np.int32)])
    assert op_of(data) == ops.Mean((1,), keep_dims=False)


def test_options_of_another_operator_are_refused() -> None:
    error = refusal(one_operator("SOFTMAX", (1, 4), (1, 4), options=schema.AddOptionsT()))
    assert "SoftmaxOptions" in error.fact


def test_a_parameter_that_is_computed_is_refused() -> None:
    file = new_file()
    x, y = file.tensor("x", INT8, (1, 4), Q), file.tensor("y", INT8, (1, 4), Q)
    widths = file.tensor("widths", DType.INT32, (2, 2))
    file.operator(Code("PAD", 1), [x, widths], y)
    assert "'widths'" in refusal(file.serialize([x, widths], [y])).fact


def test_a_constant_of_the_wrong_size_is_refused_by_name() -> None:
    def cut(model: Any) -> None:
        tensor = next(t for t in model.subgraphs[0].tensors if t.name.startswith(b"weights"))
        model.buffers[tensor.buffer].data = model.buffers[tensor.buffer].data[:-4]

    error = refusal(edit(write_tflite(single_op_graph("FULLY_CONNECTED")), cut))
    assert "'weights_1' has 136 bytes" in error.fact
    assert "needs 140" in error.fact


def test_an_unsupported_fused_activation_is_refused() -> None:
    def tanh(model: Any) -> None:
        model.subgraphs[0].operators[0].builtinOptions.fusedActivationFunction = 4

    assert "TANH" in refusal(edit(write_tflite(single_op_graph("ADD")), tanh)).fact


def test_shuffled_weights_are_refused() -> None:
    def shuffled(model: Any) -> None:
        model.subgraphs[0].operators[0].builtinOptions.weightsFormat = 1

    assert "weights format" in refusal(edit(write_tflite(single_op_graph("FULLY_CONNECTED")), shuffled)).fact


def _sparse(tensor: Any) -> None:
    tensor.sparsity = schema.SparsityParametersT()


def _variable(tensor: Any) -> None:
    tensor.isVariable = True


def _string(tensor: Any) -> None:
    tensor.type = schema.TensorType.STRING


def _int4(tensor: Any) -> None:
    tensor.type = schema.TensorType.INT4


def _blockwise(tensor: Any) -> None:
    tensor.quantization.detailsType = schema.QuantizationDetails.BlockwiseQuantization
    tensor.quantization.details = schema.BlockwiseQuantizationT()


def _external(tensor: Any) -> None:
    tensor.externalBuffer = 1


def _no_number(tensor: Any) -> None:
    tensor.quantization.scale = np.array([np.nan], np.float32)


def _zero_scale(tensor: Any) -> None:
    tensor.quantization.scale = np.array([0], np.float32)


def _zero_point(tensor: Any) -> None:
    tensor.quantization.zeroPoint = np.array([128], np.int64)


def _two_scales(tensor: Any) -> None:
    tensor.quantization.scale = np.array([1, 1], np.float32)


def _buffer(tensor: Any) -> None:
    tensor.buffer = 1000


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (_sparse, "sparse"),
        (_variable, "variable"),
        (_string, "STRING"),
        (_int4, "INT4"),
        (_blockwise, "in a way other than"),
        (_external, "external buffer"),
        (_no_number, "positive finite"),
        (_zero_scale, "positive finite"),
        (_zero_point, "zero point outside int8"),
        (_two_scales, "2 scales along axis 0"),
        (_buffer, "buffer 1000 of"),
    ],
)
def test_a_tensor_that_is_not_supported_is_refused_by_name(change: Any, fact: str) -> None:
    def first(model: Any) -> None:
        change(model.subgraphs[0].tensors[0])

    error = refusal(edit(write_tflite(single_op_graph("SOFTMAX")), first))
    assert fact in error.fact
    assert "'input_0'" in error.fact


def test_float16_weights_behind_dequantize_become_float_constants() -> None:
    file = new_file()
    x, y = file.tensor("x", DType.FLOAT32, (1, 3)), file.tensor("y", DType.FLOAT32, (1, 2))
    weights = np.array([[1, 2, 3], [0.5, -1, 4]], np.float32)
    half = file.parameter("half", weights.astype(np.int16))
    full = file.tensor("full", DType.FLOAT32, (2, 3))
    file.operator(Code("DEQUANTIZE", 3), [half], full)
    file.operator(Code("FULLY_CONNECTED", 1), [x, full], y, schema.FullyConnectedOptionsT())

    def to_half(model: Any) -> None:
        tensor = model.subgraphs[0].tensors[half]
        tensor.type = schema.TensorType.FLOAT16
        model.buffers[tensor.buffer].data = np.frombuffer(weights.astype("<f2").tobytes(), np.uint8)

    graph = parse(edit(file.serialize([x], [y]), to_half))
    assert [n.op.kind for n in graph.nodes] == ["FULLY_CONNECTED"]
    assert np.array_equal(graph.value("full").array, weights)


def test_int8_weights_behind_dequantize_become_float_constants() -> None:
    file = new_file()
    x, y = file.tensor("x", DType.FLOAT32, (1, 3)), file.tensor("y", DType.FLOAT32, (1, 2))
    quantization = Quantization((0.5, 2.0), (1, 0), axis=0)
    packed = file.parameter("packed", np.array([[1, 2, 3], [4, 5, 6]], np.int8), quantization)
    full = file.tensor("full", DType.FLOAT32, (2, 3))
    file.operator(Code("DEQUANTIZE", 2), [packed], full)
    file.operator(Code("FULLY_CONNECTED", 1), [x, full], y, schema.FullyConnectedOptionsT())
    graph = parse(file.serialize([x], [y]))
    assert graph.value("full").array.tolist() == [[0.0, 0.5, 1.0], [8.0, 10.0, 12.0]]


def test_a_tensor_used_before_it_is_computed_is_refused() -> None:
    def swap(model: Any) -> None:
        model.subgraphs[0].operators.reverse()

    assert "nothing has computed" in refusal(edit(write_tflite(every_op_graph()), swap)).fact


def test_constants_are_read_only() -> None:
    graph = parse(write_tflite(single_op_graph("CONV_2D")))
    assert not any(v.array.flags.writeable for v in graph.constants())


def test_a_pad_in_float_keeps_its_fill() -> None:
    b = GraphBuilder(0, is_float=True)
    graph = parse(write_tflite(b.graph(pad(b, value=-1.5))))
    assert graph.nodes[0].op.value == -1.5  # type: ignore[attr-defined]
