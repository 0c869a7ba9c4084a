"""A TFLite file under construction: tensors, buffers, operator codes, and the bytes of them all."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinydeploy.backends.tflite_forms import int4_bytes, is_int4
from tinydeploy.ir.types import Array, DType, Quantization, Value

_BUFFER_ALIGNMENT = 16


@dataclass(frozen=True)
class Code:
    """A builtin operator and the version whose features it uses.

    Runtimes refuse versions that they do not know, so it is the least one that covers the case
    (tensorflow/lite/tools/versioning/op_version.cc).
    """

    kind: str
    version: int


@dataclass
class ModelFile:
    """Collects the parts of a one-subgraph model in the order of their numbers.

    Attributes:
        schema: the generated module of the TFLite schema.
    """

    schema: Any
    _tensors: list[Any] = field(default_factory=list)
    _buffers: list[Array | None] = field(default_factory=lambda: [None])
    _operators: list[Any] = field(default_factory=list)
    _codes: dict[Code, int] = field(default_factory=dict)
    _names: set[str] = field(default_factory=set)

    def tensor(
        self,
        name: str,
        dtype: DType,
        shape: tuple[int, ...],
        quantization: Quantization | None = None,
        data: Array | None = None,
        *,
        int4: bool = False,
    ) -> int:
        """Adds a tensor, under another name where `name` is taken, and returns its number.

        Args:
            int4: int8 data that becomes INT4.
        """
        raw = self.schema.TensorT()
        raw.name = self._unique(name)
        raw.type = getattr(self.schema.TensorType, "INT4" if int4 else dtype.name)
        raw.shape = np.array(shape, np.int32)
        raw.hasRank = True
        if quantization is not None:
            raw.quantization = self._quantization(quantization)
        if data is not None:
            # Buffer 0 stays empty: every tensor that has no data refers to it.
            raw.buffer = len(self._buffers)
            self._buffers.append(np.frombuffer(int4_bytes(data), np.uint8) if int4 else data)
        self._tensors.append(raw)
        return len(self._tensors) - 1

    def value(self, value: Value, name: str | None = None) -> int:
        return self.tensor(
            name or value.name,
            value.dtype,
            value.shape,
            value.quantization,
            value.data,
            int4=is_int4(value),
        )

    def parameter(self, name: str, data: Array, quantization: Quantization | None = None) -> int:
        """Adds a constant that a parameter of an op became."""
        return self.tensor(name, DType(data.dtype.name), tuple(data.shape), quantization, data)

    def operator(self, code: Code, inputs: list[int], output: int, options: Any = None) -> None:
        """Appends an operator with an options object of the schema."""
        raw = self.schema.OperatorT()
        raw.opcodeIndex = self._codes.setdefault(code, len(self._codes))
        raw.inputs = np.array(inputs, np.int32)
        raw.outputs = np.array([output], np.int32)
        if options is not None:
            kind = type(options).__name__.removesuffix("T")
            raw.builtinOptionsType = getattr(self.schema.BuiltinOptions, kind)
            raw.builtinOptions = options
        self._operators.append(raw)

    def serialize(self, inputs: list[int], outputs: list[int]) -> bytes:
        """The finished file; equal contents give equal bytes."""
        import flatbuffers  # noqa: PLC0415

        subgraph = self.schema.SubGraphT()
        subgraph.name = "main"
        subgraph.tensors, subgraph.operators = self._tensors, self._operators
        subgraph.inputs, subgraph.outputs = np.array(inputs, np.int32), np.array(outputs, np.int32)
        model = self.schema.ModelT()
        model.version = 3
        model.description = "tinydeploy"
        model.operatorCodes = [self._code(code) for code in self._codes]
        model.subgraphs = [subgraph]
        model.buffers = [_AlignedBuffer(self.schema, data) for data in self._buffers]
        size = sum(0 if data is None else data.nbytes + _BUFFER_ALIGNMENT for data in self._buffers)
        builder = flatbuffers.Builder(size + 1024)
        builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())

    def _unique(self, name: str) -> str:
        candidate, count = name, 0
        while candidate in self._names:
            count += 1
            candidate = f"{name}_{count}"
        self._names.add(candidate)
        return candidate

    def _quantization(self, quantization: Quantization) -> Any:
        raw = self.schema.QuantizationParametersT()
        raw.scale = np.array(quantization.scales, np.float32)
        raw.zeroPoint = np.array(quantization.zero_points, np.int64)
        raw.quantizedDimension = quantization.axis or 0
        return raw

    def _code(self, code: Code) -> Any:
        raw = self.schema.OperatorCodeT()
        raw.builtinCode = getattr(self.schema.BuiltinOperator, code.kind)
        # The old byte-wide field; 127 stands for a number that does not fit.
        raw.deprecatedBuiltinCode = min(raw.builtinCode, 127)
        raw.version = code.version
        return raw


@dataclass(frozen=True)
class _AlignedBuffer:
    """A Buffer whose data starts at a multiple of 16 bytes, as the schema demands and runtimes rely on.

    The generated object aligns bytes to four.
    """

    schema: Any
    data: Array | None

    def Pack(self, builder: Any) -> Any:  # noqa: N802  # the generated objects' protocol
        vector = None
        if self.data is not None:
            raw = np.ascontiguousarray(self.data, self.data.dtype.newbyteorder("<")).tobytes()
            builder.Prep(_BUFFER_ALIGNMENT, len(raw))
            vector = builder.CreateByteVector(raw)
        self.schema.BufferStart(builder)
        if vector is not None:
            self.schema.BufferAddData(builder, vector)
        return self.schema.BufferEnd(builder)
