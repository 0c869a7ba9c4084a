"""The drafts become a graph: outputs as the model shows them, dead steps dropped, names made unique."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tinydeploy import ops
from tinydeploy.errors import DeployError
from tinydeploy.frontends.onnx_builder import Builder, output_layout
from tinydeploy.frontends.onnx_tensor import Draft, Flow, Step
from tinydeploy.ir.graph import Graph, Layout, Node
from tinydeploy.ir.types import DType
from tinydeploy.ir.verify import verify
from tinydeploy.passes.borders import strip_borders


def finish(builder: Builder, outputs: Sequence[tuple[str, Flow]], name: str, source: str) -> Graph:
    """The verified graph, its borders stripped (see `passes.borders`) and their layouts set.

    Raises:
        DeployError: an output has no scale, or the graph breaks a rule.
    """
    ends: list[tuple[Draft, Layout | None]] = []
    for label, flow in outputs:
        try:
            ends.append(_end(builder, label, flow))
        except DeployError as error:
            raise DeployError(error.fact, where=f"{source}: output {label!r}", hint=error.hint) from None
    steps = _live_steps(builder.steps, [draft for draft, _ in ends])
    _name(builder, [draft for draft, _ in ends], steps)
    drafts = [d for d, _ in builder.inputs]
    drafts += [d for step in steps for d in (*step.inputs, step.output)]
    graph = Graph(
        name,
        {d.name: d.value() for d in drafts},
        tuple(Node(s.name, s.op, tuple(d.name for d in s.inputs), (s.output.name,)) for s in steps),
        tuple(d.name for d, _ in builder.inputs),
        tuple(d.name for d, _ in ends),
        source=source,
        norm_scales={s.name: s.norm_scale for s in steps if s.norm_scale is not None},
    )
    verify(graph)
    stripped = strip_borders(graph)
    inputs = zip(stripped.input_borders, builder.inputs, strict=True)
    results = zip(stripped.output_borders, ends, outputs, strict=True)
    bordered = replace(
        stripped,
        input_borders=tuple(replace(b, layout=layout) for b, (_, layout) in inputs),
        output_borders=tuple(replace(b, name=label, layout=lay) for b, (_, lay), (label, _) in results),
    )
    verify(bordered)
    return bordered


def _end(builder: Builder, label: str, flow: Flow) -> tuple[Draft, Layout | None]:
    """The value that the model shows, in the type that it has there."""
    memory, shape, layout = output_layout(flow.view)
    draft = builder.place_factors(flow, memory, shape)
    if flow.real and not draft.dtype.is_float:
        if draft.pending:
            raise DeployError(
                f"nothing quantizes the result of {draft.name!r}",
                hint="put QuantizeLinear and DequantizeLinear behind the last layer too",
            )
        return builder.emit(label, ops.Dequantize(), [draft], dtype=DType.FLOAT32), layout
    if flow.unsigned and not flow.real:
        quantization = replace(draft.quant, zero_points=(draft.quant.zero_point + 128,))
        last = builder.emit(label, ops.Quantize(), [draft], quantization=quantization, dtype=DType.UINT8)
        return last, layout
    return draft, layout


def _live_steps(steps: Sequence[Step], ends: Sequence[Draft]) -> list[Step]:
    needed = set(ends)
    live = []
    for step in reversed(steps):
        if step.output in needed:
            live.append(step)
            needed.update(step.inputs)
    return live[::-1]


def _name(builder: Builder, ends: Sequence[Draft], steps: Sequence[Step]) -> None:
    """Gives every draft and step a name of its own; those that the user knows keep theirs."""
    order = [d for d, _ in builder.inputs] + list(ends) + [s.output for s in steps]
    order += [d for s in steps for d in s.inputs]
    taken = Names()
    done: set[Draft] = set()
    for draft in order:
        if draft not in done:
            done.add(draft)
            draft.name = taken.free(draft.name)
    nodes = Names()
    for step in steps:
        step.name = nodes.free(step.name)


class Names:
    """Hands out each name once, and later ones with a number behind them."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._counts: dict[str, int] = {}

    def free(self, name: str) -> str:
        candidate = name
        while candidate in self._taken:
            # The count goes on where it was, so that many equal names cost no more than different ones.
            self._counts[name] = self._counts.get(name, 0) + 1
            candidate = f"{name}_{self._counts[name]}"
        self._taken.add(candidate)
        return candidate
