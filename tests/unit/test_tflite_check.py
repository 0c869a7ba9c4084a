"""A .tflite file is proved sound before it is read: each kind of damage is refused by name."""

from __future__ import annotations

import random
import time

import flatbuffers
import pytest
from ai_edge_litert import schema_py_generated as schema
from graphs import every_op_graph, single_op_graph
from tflite_edit import edit, element, field, follow, patch, root

from tinydeploy.backends.tflite import write_tflite
from tinydeploy.errors import DeployError
from tinydeploy.frontends.tflite import parse_tflite
from tinydeploy.frontends.tflite_check import MAX_TABLES, OPTIONS, TABLES, check_tflite

SUBGRAPHS, BUFFERS = 2, 4


@pytest.fixture(scope="module")
def model() -> bytes:
    return write_tflite(single_op_graph("CONV_2D"))


def refusal(data: bytes) -> str:
    with pytest.raises(DeployError) as caught:
        check_tflite(data, "model.tflite")
    assert caught.value.where == "model.tflite"
    assert caught.value.hint
    return caught.value.fact


def vtable_of(data: bytes) -> int:
    """Where the root table's vtable stands."""
    at = root(data)
    return at - int.from_bytes(data[at : at + 4], "little", signed=True)


def test_a_written_model_passes(model: bytes) -> None:
    check_tflite(model, "model.tflite")


@pytest.mark.parametrize("kind", [k for k in TABLES if k != "SparsityParameters"])
def test_the_declared_field_ids_are_those_of_the_schema(kind: str) -> None:
    """The accessor for a field reads the vtable entry that the check has proved."""
    for name, declared in TABLES[kind].items():
        accessor = getattr(schema, kind)
        function = getattr(accessor, "".join(part.title() for part in name.split("_")), None)
        assert function is not None, name
        assert 4 + 2 * declared.id in function.__code__.co_consts, name


def test_the_declared_unions_are_those_of_the_schema() -> None:
    for number, kind in OPTIONS.items():
        assert getattr(schema.BuiltinOptions, kind) == number


def test_a_file_of_a_few_bytes_is_too_short() -> None:
    for length in range(8):
        assert "too short" in refusal(b"\x04\0\0\0TFL"[:length])


def test_a_bad_identifier_is_refused(model: bytes) -> None:
    assert "TFL3" in refusal(model[:4] + b"ONNX" + model[8:])


def test_a_file_truncated_anywhere_is_refused(model: bytes) -> None:
    for length in range(0, len(model) - 1, 37):
        refusal(model[:length])


def test_a_root_beyond_the_end_is_refused(model: bytes) -> None:
    assert "outside the file" in refusal(patch(model, 0, "<I", len(model)))


@pytest.mark.parametrize("distance", [1 << 30, -(1 << 30), -(1 << 31), (1 << 31) - 1])
def test_a_vtable_outside_the_file_is_refused(model: bytes, distance: int) -> None:
    assert "vtable" in refusal(patch(model, root(model), "<i", distance))


def test_a_vtable_of_odd_length_is_refused(model: bytes) -> None:
    vtable = vtable_of(model)
    assert "impossible length" in refusal(patch(model, vtable, "<H", 5))


def test_a_table_that_runs_over_the_end_is_refused(model: bytes) -> None:
    assert len(model) < 0xFFFF
    assert "outside the file" in refusal(patch(model, vtable_of(model) + 2, "<H", 0xFFFF))


def test_a_field_outside_its_table_is_refused(model: bytes) -> None:
    vtable = vtable_of(model)
    assert "outside its table" in refusal(patch(model, vtable + 4 + 2 * SUBGRAPHS, "<H", 0x4000))


def test_a_vector_longer_than_the_file_is_refused(model: bytes) -> None:
    vector = follow(model, field(model, root(model), BUFFERS))
    assert "does not fit the file" in refusal(patch(model, vector, "<I", 0xFFFFFFFF))


def test_an_offset_that_would_wrap_around_is_refused(model: bytes) -> None:
    at = field(model, root(model), SUBGRAPHS)
    for offset in (0xFFFFFFFC, 0x80000000, 0x7FFFFFFF):
        assert "outside the file" in refusal(patch(model, at, "<I", offset))


def test_a_table_that_refers_to_itself_ends(model: bytes) -> None:
    subgraph = element(model, follow(model, field(model, root(model), SUBGRAPHS)), 0)
    tensors = follow(model, field(model, subgraph, 0))
    for at in (field(model, root(model), SUBGRAPHS), field(model, subgraph, 0), tensors + 4):
        with pytest.raises(DeployError):
            parse_tflite(patch(model, at, "<I", 0), "m", "model.tflite")


def test_a_missing_required_field_is_refused(model: bytes) -> None:
    vtable = vtable_of(model)
    assert "buffers is missing" in refusal(patch(model, vtable + 4 + 2 * BUFFERS, "<H", 0))


def test_a_name_that_is_not_utf8_is_refused(model: bytes) -> None:
    assert "not UTF-8" in refusal(model.replace(b"input_0", b"input_\xff"))


def _many(element_count: int, scales: int) -> bytes:
    """One tensor with a long scale list, listed `element_count` times."""
    builder = flatbuffers.Builder(1 << 20)
    name = builder.CreateString("t")
    schema.QuantizationParametersStartScaleVector(builder, scales)
    for _ in range(scales):
        builder.PrependFloat32(1.0)
    vector = builder.EndVector()
    schema.QuantizationParametersStart(builder)
    schema.QuantizationParametersAddScale(builder, vector)
    quantization = schema.QuantizationParametersEnd(builder)
    schema.TensorStart(builder)
    schema.TensorAddName(builder, name)
    schema.TensorAddQuantization(builder, quantization)
    tensor = schema.TensorEnd(builder)
    schema.SubGraphStartTensorsVector(builder, element_count)
    for _ in range(element_count):
        builder.PrependUOffsetTRelative(tensor)
    tensors = builder.EndVector()
    empty = []
    for start in (schema.SubGraphStartInputsVector, schema.SubGraphStartOutputsVector):
        start(builder, 0)
        empty.append(builder.EndVector())
    schema.SubGraphStart(builder)
    schema.SubGraphAddTensors(builder, tensors)
    schema.SubGraphAddInputs(builder, empty[0])
    schema.SubGraphAddOutputs(builder, empty[1])
    subgraph = schema.SubGraphEnd(builder)
    schema.ModelStartSubgraphsVector(builder, 1)
    builder.PrependUOffsetTRelative(subgraph)
    subgraphs = builder.EndVector()
    schema.ModelStartBuffersVector(builder, 0)
    buffers = builder.EndVector()
    schema.ModelStart(builder)
    schema.ModelAddVersion(builder, 3)
    schema.ModelAddSubgraphs(builder, subgraphs)
    schema.ModelAddBuffers(builder, buffers)
    builder.Finish(schema.ModelEnd(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def test_one_table_shared_very_often_is_refused_in_bounded_time() -> None:
    start = time.perf_counter()
    assert f"more than {MAX_TABLES} tables" in refusal(_many(MAX_TABLES + 1, 1))
    assert f"more than {MAX_TABLES} tables" in refusal(_many(MAX_TABLES // 2 + 1, 1))
    assert time.perf_counter() - start < 10


def test_one_vector_shared_very_often_is_refused() -> None:
    assert "share more bytes" in refusal(_many(1000, 5000))


def test_a_megabyte_of_weights_is_checked_in_no_time() -> None:
    data = write_tflite(single_op_graph("FULLY_CONNECTED", shape=(1, 1000), outputs=1000))
    assert len(data) > 1_000_000
    start = time.perf_counter()
    check_tflite(data, "model.tflite")
    assert time.perf_counter() - start < 0.2


def damaged(data: bytes, rng: random.Random) -> bytes:
    """One copy with one kind of damage."""
    copy = bytearray(data)
    at = rng.randrange(len(copy))
    match rng.randrange(4):
        case 0:
            return bytes(copy[:at])
        case 1:
            for _ in range(rng.choice((1, 1, 4, 16))):
                copy[rng.randrange(len(copy))] ^= 1 << rng.randrange(8)
        case 2:
            copy[at : at + 8] = rng.randbytes(min(8, len(copy) - at))
        case _:
            word = rng.choice((0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, len(copy) - 4))
            copy[at & ~3 : (at & ~3) + 4] = word.to_bytes(4, "little")
    return bytes(copy)


@pytest.mark.parametrize("is_float", [False, True])
def test_damaged_copies_are_read_or_refused_and_nothing_else(is_float: bool) -> None:
    rng = random.Random(20260101)
    data = write_tflite(every_op_graph(is_float=is_float))
    refused = 0
    for _ in range(200):
        try:
            parse_tflite(damaged(data, rng), "m", "model.tflite")
        except DeployError as error:
            assert error.fact
            refused += 1
    assert refused > 50


def test_an_object_written_by_another_writer_passes(model: bytes) -> None:
    check_tflite(edit(model, lambda m: None), "model.tflite")
