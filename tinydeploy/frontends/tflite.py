"""TFLite models to graphs: the file is checked, its operators are read, dead ones dropped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tinydeploy.errors import DeployError
from tinydeploy.frontends.files import read_bytes
from tinydeploy.frontends.tflite_check import check_tflite
from tinydeploy.frontends.tflite_operators import READERS, Operator, Reader
from tinydeploy.frontends.tflite_tensors import Tensors
from tinydeploy.ir.graph import Graph, Node
from tinydeploy.ir.limits import MAX_FILE_BYTES, MAX_NODES
from tinydeploy.ir.verify import verify
from tinydeploy.passes.borders import strip_borders
from tinydeploy.passes.layouts import fold_layouts, has_transposes


def read_tflite(path: Path) -> Graph:
    """Reads a .tflite file; the graph is named after it.

    Raises:
        DeployError: the file cannot be read, is damaged, or holds what is not supported.
    """
    return parse_tflite(read_bytes(path), path.stem, str(path))


def parse_tflite(data: bytes, name: str, source: str) -> Graph:
    """The verified graph of a .tflite file's bytes, borders stripped (`passes.borders`, `passes.layouts`).

    Values keep the tensors' names, repeated ones with a suffix; a node is called like its output.

    Args:
        name: the graph's name.
        source: the file's name, for messages.

    Raises:
        DeployError: the bytes are damaged, or an operator, type or option is not supported.
    """
    if len(data) > MAX_FILE_BYTES:
        raise DeployError(f"{len(data)} bytes; the limit is {MAX_FILE_BYTES}", where=source)
    check_tflite(data, source)
    from ai_edge_litert import schema_py_generated as schema  # noqa: PLC0415

    graph = strip_borders(_Reading(schema, schema.Model.GetRootAs(data, 0), source).graph(name))
    if has_transposes(graph):
        verify(graph)
        # A model may quantize before it transposes, or after.
        graph = strip_borders(fold_layouts(graph))
    verify(graph)
    return graph


@contextmanager
def _located(where: str) -> Iterator[None]:
    try:
        yield
    except DeployError as error:
        raise DeployError(error.fact, where=where, hint=error.hint) from None


class _Reading:
    """One checked file on its way to a graph."""

    def __init__(self, schema: Any, model: Any, source: str) -> None:
        self._schema = schema
        self._model = model
        self._source = source
        self._subgraph = _only_subgraph(model, source)
        with _located(source):
            self._tensors = Tensors(schema, model, self._subgraph)

    def graph(self, name: str) -> Graph:
        operators = self._operators()
        with _located(self._source):
            inputs = self._border("inputs", self._subgraph.InputsLength(), self._subgraph.Inputs)
            outputs = self._border("outputs", self._subgraph.OutputsLength(), self._subgraph.Outputs)
        nodes = self._nodes(operators)
        live = _live(nodes, {self._tensors.name(i) for i in outputs})
        used = {n for node in live for n in (*node.inputs, *node.outputs)}
        numbers = {self._tensors.name(i): i for i in range(len(self._tensors))}
        names = {*(self._tensors.name(i) for i in (*inputs, *outputs)), *used}
        with _located(self._source):
            values = {n: self._tensors.value(i) for n, i in numbers.items() if n in names}
        return Graph(
            name,
            values,
            tuple(live),
            tuple(self._tensors.name(i) for i in inputs),
            tuple(self._tensors.name(i) for i in outputs),
            source=self._source,
        )

    def _border(self, what: str, count: int, element: Any) -> list[int]:
        if count > len(self._tensors):
            raise DeployError(f"{count} {what} and {len(self._tensors)} tensors")
        numbers = [element(i) for i in range(count)]
        for number in numbers:
            self._tensors.name(number)
        return numbers

    def _operators(self) -> list[tuple[str, Any]]:
        """Kind and table of every operator; refuses all unsupported ones in one message."""
        count = self._subgraph.OperatorsLength()
        if count > MAX_NODES:
            raise DeployError(f"{count} operators; the limit is {MAX_NODES}", where=self._source)
        with _located(self._source):
            kinds = self._kinds()
        found, unsupported = [], []
        for i in range(count):
            raw = self._subgraph.Operators(i)
            if raw.OpcodeIndex() >= len(kinds):
                raise DeployError(
                    f"operator {i} has code {raw.OpcodeIndex()} of {len(kinds)}", where=self._source
                )
            kind = kinds[raw.OpcodeIndex()]
            found.append((kind, raw))
            if kind not in READERS:
                unsupported.append(f"operator {i} {kind} (output {self._output_name(raw)})")
        if unsupported:
            listed = "".join(f"\n    {line}" for line in unsupported)
            raise DeployError(
                f"{len(unsupported)} of {count} operators are not supported:{listed}",
                where=self._source,
                hint=f"supported are {', '.join(sorted(READERS))}",
            )
        return found

    def _kinds(self) -> list[str]:
        operators = self._schema.BuiltinOperator
        names = {v: k for k, v in vars(operators).items() if isinstance(v, int)}
        kinds = []
        for i in range(self._model.OperatorCodesLength()):
            code = self._model.OperatorCodes(i)
            # Numbers above 126 did not fit the old byte-wide field, which then holds a placeholder.
            number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
            kind = names.get(number, f"number {number}")
            if number == operators.CUSTOM:
                kind = f"CUSTOM {(code.CustomCode() or b'').decode()!r:.100}"
            kinds.append(kind)
        return kinds

    def _output_name(self, raw: Any) -> str:
        number = raw.Outputs(0) if raw.OutputsLength() else -1
        return repr(self._tensors.name(number)) if 0 <= number < len(self._tensors) else "none"

    def _nodes(self, operators: list[tuple[str, Any]]) -> list[Node]:
        nodes = []
        for i, (kind, raw) in enumerate(operators):
            with _located(f"{self._source}: operator {i} {kind} {self._output_name(raw)}"):
                node = self._node(READERS[kind], kind, raw)
            if node is not None:
                nodes.append(node)
        return nodes

    def _node(self, reader: Reader, kind: str, raw: Any) -> Node | None:
        """The node, or None where a constant was computed instead."""
        operator = self._operator(reader, raw)
        if kind == "DEQUANTIZE" and operator.inputs[0] is not None:
            folded = self._tensors.constant_as_float(operator.inputs[0])
            if folded is not None:
                self._fold(operator, folded)
                return None
        numbers = operator.inputs if reader.kept is None else operator.inputs[: reader.kept]
        names = tuple(None if n is None else self._tensors.value(n).name for n in numbers)
        while names and names[-1] is None:
            names = names[:-1]
        output = operator.result.name
        return Node(output, reader.read(operator), names, (output,))

    def _fold(self, operator: Operator, data: Any) -> None:
        result = operator.result
        if not result.dtype.is_float or result.is_constant or result.shape != data.shape:
            raise DeployError(f"the output {result.name!r} is no float tensor of shape {data.shape}")
        self._tensors.replace(operator.output, data)

    def _operator(self, reader: Reader, raw: Any) -> Operator:
        least, most = reader.arity
        count = raw.InputsLength()
        if not least <= count <= most:
            raise DeployError(f"has {count} inputs, not {least} to {most}")
        if raw.OutputsLength() != 1:
            raise DeployError(f"has {raw.OutputsLength()} outputs, not 1")
        inputs = [raw.Inputs(i) for i in range(count)]
        for number in (*(n for n in inputs if n != -1), raw.Outputs(0)):
            self._tensors.name(number)
        return Operator(
            self._schema,
            raw,
            self._tensors,
            tuple(None if n == -1 else n for n in inputs),
            raw.Outputs(0),
        )


def _only_subgraph(model: Any, source: str) -> Any:
    if model.Version() != 3:
        raise DeployError(f"schema version {model.Version()}, and 3 is supported", where=source)
    count = model.SubgraphsLength()
    if count != 1:
        names = [(model.Subgraphs(i).Name() or b"").decode() for i in range(min(count, 10))]
        raise DeployError(
            f"{count} subgraphs ({', '.join(map(repr, names))}), and one is supported",
            where=source,
            hint="control flow (IF, WHILE, CALL_ONCE) is not supported; export one plain network",
        )
    return model.Subgraphs(0)


def _live(nodes: list[Node], outputs: set[str]) -> list[Node]:
    """The nodes that an output depends on."""
    needed: set[str | None] = set(outputs)
    live = []
    for node in reversed(nodes):
        if needed.intersection(node.outputs):
            live.append(node)
            needed.update(node.inputs)
    return live[::-1]
