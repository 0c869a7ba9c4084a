"""ONNX models to graphs: the file is checked, its nodes are read in order, and layouts settle to NHWC."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tinydeploy.errors import DeployError
from tinydeploy.frontends.files import read_bytes
from tinydeploy.frontends.onnx_at import At
from tinydeploy.frontends.onnx_builder import Builder, OrderNeededError
from tinydeploy.frontends.onnx_check import (
    DOMAINS,
    attributes,
    input_type,
    opset_of,
    parse_model,
    text,
)
from tinydeploy.frontends.onnx_finish import finish
from tinydeploy.frontends.onnx_fold import FOLDERS, fold
from tinydeploy.frontends.onnx_forms import initializer, read_notes
from tinydeploy.frontends.onnx_layout import Shape, channels_last
from tinydeploy.frontends.onnx_operators import READERS
from tinydeploy.frontends.onnx_tensor import Flow, Known, Tensor
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.limits import MAX_TOTAL_ELEMENTS
from tinydeploy.ir.types import DType

_INPUT_TYPES = {"float32": DType.FLOAT32, "int8": DType.INT8, "uint8": DType.UINT8}

_MAX_INPUTS = 16
"""Each may make reading start again once."""

Orders = dict[str, tuple[Shape, tuple[int, ...]]]


def read_onnx(path: Path) -> Graph:
    """Reads an .onnx file; the graph is named after it.

    Raises:
        DeployError: the file cannot be read, is damaged, or holds what is not supported.
    """
    return parse_onnx(read_bytes(path), path.stem, str(path))


def parse_onnx(data: bytes, name: str, source: str) -> Graph:
    """The verified graph of an .onnx file's bytes: NHWC inside, float or int8 as the model is.

    Inputs and outputs that are NCHW in the file say so in their `Border.layout`; an unknown batch is 1.
    Activations of uint8 become int8 with the same scale; integer inputs and outputs keep their type.

    Args:
        name: the graph's name.
        source: the file's name, for messages.

    Raises:
        DeployError: the bytes are damaged, or operators, types or options are not supported; one error
            lists all of them.
    """
    model = parse_model(data, source)
    opset = opset_of(model, source)
    try:
        ranks = {n: len(s) for n, (_, s) in _graph_inputs(model.graph).items()}
    except DeployError as error:
        raise DeployError(error.fact, where=source, hint=error.hint) from None
    try:
        return _read(model, opset, name, source, set())
    except DeployError as first:
        # What stands between an input and the first layer that fixes an order may fit the usual one only.
        usual = {n for n, rank in ranks.items() if rank in (3, 4)}
        if not usual:
            raise
        try:
            return _read(model, opset, name, source, usual)
        except DeployError:
            raise first from None


def _read(model: Any, opset: int, name: str, source: str, usual: set[str]) -> Graph:
    """Reads until no layer asks for another order of an input; each input is settled at most once.

    Args:
        usual: the inputs that are taken as channels first (NCHW) from the start.
    """
    shapes = {n: s for n, (_, s) in _graph_inputs(model.graph).items()}
    orders: Orders = {n: (shapes[n], channels_last(len(shapes[n]))) for n in usual}
    while True:
        try:
            reading = _Reading(model, opset, source, Builder(dict(orders)))
            return finish(reading.builder, reading.outputs(), name, source)
        except OrderNeededError as needed:
            orders[needed.name] = needed.order


def _graph_inputs(graph: Any) -> dict[str, tuple[str, Shape]]:
    """Type and shape of the inputs that are no initialisers."""
    initialised = {text(t.name, "tensor's name") for t in graph.initializer}
    found: dict[str, tuple[str, Shape]] = {}
    for value in graph.input:
        if text(value.name, "input's name") in initialised:
            continue
        name, kind, shape = input_type(value)
        if name in found or not name:
            raise DeployError(f"the input name {name!r} is empty or stands twice")
        found[name] = (kind, shape)
    if len(found) > _MAX_INPUTS:
        raise DeployError(f"{len(found)} inputs; the limit is {_MAX_INPUTS}")
    return found


@dataclass(frozen=True)
class _Problem:
    where: str
    fact: str
    hint: str


_Env = dict[str, Tensor | None]
"""Tensors by name; None for what an unsupported node would have computed."""


@dataclass
class _Reading:
    """One pass over a checked model."""

    model: Any
    opset: int
    source: str
    builder: Builder
    _env: _Env = field(default_factory=dict)
    _problems: list[_Problem] = field(default_factory=list)

    def outputs(self) -> list[tuple[str, Flow]]:
        """The graph outputs, after every node that they depend on was read.

        Raises:
            DeployError: listing every node that cannot be read.
        """
        graph = self.model.graph
        try:
            self._constants()
            self._inputs()
            wanted = [text(o.name, "output's name") for o in graph.output]
            nodes = _live(graph.node, wanted)
        except DeployError as error:
            raise DeployError(error.fact, where=self.source, hint=error.hint) from None
        uses = Counter([*wanted, *(i for _, node in nodes for i in node.input)])
        folded = 0
        for index, node in nodes:
            self._node(index, node, uses)
            result = self._env.get(node.output[0])
            folded += result.data.size if isinstance(result, Known) else 0
            if folded > MAX_TOTAL_ELEMENTS:
                raise DeployError("computes constants beyond the limit", where=self.source)
        self._refuse(len(nodes))
        return [(name, self._output(name)) for name in wanted]

    def _constants(self) -> None:
        notes = read_notes(self.model)
        for proto in self.model.graph.initializer:
            known = initializer(proto, notes)
            if known.name in self._env:
                raise DeployError(f"the initialiser {known.name!r} stands twice")
            self._env[known.name] = known

    def _inputs(self) -> None:
        for name, (kind, shape) in _graph_inputs(self.model.graph).items():
            if kind not in _INPUT_TYPES:
                raise DeployError(f"the input {name!r} is {kind}", hint="inputs are float32, int8 or uint8")
            self._env[name] = self.builder.input(name, _INPUT_TYPES[kind], shape)

    def _output(self, name: str) -> Flow:
        found = self._env.get(name)
        if not isinstance(found, Flow):
            raise DeployError(f"the output {name!r} is a constant or nothing computes it", where=self.source)
        return found

    def _node(self, index: int, node: Any, uses: Counter[str]) -> None:
        outputs = list(node.output)
        kind = ""
        try:
            domain = text(node.domain, "domain")
            kind = text(node.op_type, "operator's name")
            kind = kind if domain in ("", "ai.onnx") else f"{domain}:{kind}"
            result = self._result(kind, domain, node, uses)
        except DeployError as error:
            name = node.name or outputs[0]
            here = f"node {index} {kind} {name!r:.200}"
            self._problems.append(_Problem(here, error.fact, error.hint))
            result = None
        for name in outputs:
            self._env[name] = None
        self._env[outputs[0]] = result

    def _result(self, kind: str, domain: str, node: Any, uses: Counter[str]) -> Tensor | None:
        if domain not in DOMAINS or (kind not in READERS and kind not in FOLDERS):
            raise DeployError("is not supported", hint=_SUPPORTED)
        names = tuple(text(n, "tensor's name") for n in node.input)
        for name in names:
            if name and name not in self._env:
                raise DeployError(f"reads {name!r}, which nothing in front of it gives")
        for name in node.output:
            if text(name, "tensor's name") in self._env:
                raise DeployError(f"writes {name!r}, which something else gives already")
        if any(n and self._env[n] is None for n in names):
            # An input failed already; its own message is enough.
            return None
        if any(uses[n] for n in list(node.output)[1:] if n):
            raise DeployError("has more than one output in use")
        inputs = tuple(self._env[n] if n else None for n in names)
        label = text(node.name, "node's name") or node.output[0]
        at = At(self.builder, label, attributes(node), inputs, names, node.output[0], uses, self.opset)
        folded = fold(at, kind)
        if folded is not None:
            return folded
        if kind not in READERS:
            raise DeployError("is supported for constants only", hint=_SUPPORTED)
        return READERS[kind](at)

    def _refuse(self, count: int) -> None:
        if not self._problems:
            return
        first = self._problems[0]
        if len(self._problems) == 1:
            raise DeployError(first.fact, where=f"{self.source}: {first.where}", hint=first.hint)
        listed = "".join(f"\n    {p.where}: {p.fact}" for p in self._problems)
        hints = {p.hint for p in self._problems if p.hint}
        raise DeployError(
            f"{len(self._problems)} of {count} operators are not supported:{listed}",
            where=self.source,
            hint=hints.pop() if len(hints) == 1 else (_SUPPORTED if _SUPPORTED in hints else first.hint),
        )


_SUPPORTED = f"supported are {', '.join(sorted(READERS))}"


def _live(nodes: Any, outputs: list[str]) -> list[tuple[int, Any]]:
    """The nodes that an output depends on, with their numbers, in the file's order."""
    needed = set(outputs)
    live: list[tuple[int, Any]] = []
    for index in range(len(nodes) - 1, -1, -1):
        node = nodes[index]
        names = [text(n, "tensor's name") for n in node.output]
        if not names or not names[0]:
            continue
        if needed.intersection(n for n in names if n):
            live.append((index, node))
            needed.update(text(n, "tensor's name") for n in node.input)
    return live[::-1]
