"""A PyTorch program to a float graph: each call by its reader, and all that is not supported in one error."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tinydeploy.errors import DeployError
from tinydeploy.frontends.torch_builder import At, Builder, UnknownError
from tinydeploy.frontends.torch_layout import Order, Shape, channels_last, plain, same_order
from tinydeploy.frontends.torch_operators import MOVES, READERS
from tinydeploy.frontends.torch_program import Call, Program, Tensor
from tinydeploy.ir.graph import Border, Graph, Layout
from tinydeploy.ir.types import Array, Value
from tinydeploy.ir.verify import verify
from tinydeploy.passes.activations import fuse_activations
from tinydeploy.passes.affine import fold_affine
from tinydeploy.passes.pads import fold_pads
from tinydeploy.passes.unused import drop_unused

_LAYOUTS: tuple[Callable[[Shape], Order], ...] = (channels_last, plain)
"""How inputs may be held; the second is for networks that take sequences of features or NHWC."""


def graph_of(program: Program, name: str, source: str) -> Graph:
    """The verified float graph of a program, its inputs held channels-last, or else as they are.

    Raises:
        DeployError: naming every operation that is not supported.
    """
    where = source or name
    _require_batch_of_one(program, where)
    failures: list[list[tuple[Call, DeployError]]] = []
    for layout in _LAYOUTS:
        builder, errors = _read(program, layout)
        if not errors:
            graph = _assemble(program, builder, layout, name, source)
            verify(graph)
            return graph
        failures.append(errors)
    raise _all_of(min(failures, key=len), where)


def _require_batch_of_one(program: Program, where: str) -> None:
    if not program.inputs:
        raise DeployError("the network takes no input", where=where)
    for name, shape in program.inputs:
        if len(shape) > 1 and shape[0] != 1:
            raise DeployError(
                f"the input {name!r} has shape {shape}, and the batch must be 1",
                where=where,
                hint="export it with an example whose first axis is 1, or with a varying batch",
            )


def _all_of(errors: list[tuple[Call, DeployError]], where: str) -> DeployError:
    """One error that names every call that is not supported."""
    lines = [
        f"{call.target} {call.name!r}{f' in {call.where}' if call.where else ''}: {error.fact}"
        for call, error in errors
    ]
    hints = list(dict.fromkeys(error.hint for _, error in errors if error.hint))
    if len(lines) == 1:
        return DeployError(lines[0], where=where, hint="; ".join(hints))
    facts = "".join(f"\n  - {line}" for line in lines)
    return DeployError(
        f"{len(lines)} operations are not supported:{facts}", where=where, hint="; ".join(hints)
    )


def _read(
    program: Program, layout: Callable[[Shape], Order]
) -> tuple[Builder, list[tuple[Call, DeployError]]]:
    builder = Builder(dict(program.constants), program.paths)
    for name, shape in program.inputs:
        builder.input(name, shape, layout)
    errors: list[tuple[Call, DeployError]] = []
    for call in program.calls:
        try:
            _read_call(call, builder)
        except UnknownError:
            continue
        except DeployError as error:
            errors.append((call, error))
        except (TypeError, ValueError, IndexError, AttributeError, ZeroDivisionError) as error:
            errors.append((call, DeployError(f"its arguments have a form that is not supported ({error})")))
    return builder, errors


def _read_call(call: Call, builder: Builder) -> None:
    namespace, _, rest = call.target.partition(".")
    name = rest.partition(".")[0]
    if "_assert" in name or name.startswith("sym_"):
        return
    in_place = name.endswith("_") and name[:-1] in READERS
    name = name[:-1] if in_place else name
    if namespace != "aten" or name not in READERS:
        raise DeployError("this operator is not supported")
    at = At(call, builder)
    result_name = call.outputs[0]
    if result_name is None:
        return
    if name in MOVES and at.is_constant(at.first()):
        builder.constants[result_name] = _moved_constant(call, builder)
        return
    before = at.first()
    result = READERS[name](at)
    builder.held[result_name] = result
    if in_place and isinstance(before, Tensor) and before.name in builder.held:
        # Views share their storage with what they look at, and here the graph's value; all see the change.
        old = builder.held[before.name].value.name
        for key, held in list(builder.held.items()):
            if held.value.name == old and result.value.shape == held.value.shape:
                builder.held[key] = type(held)(result.value, held.shape, held.order)


def _moved_constant(call: Call, builder: Builder) -> Array:
    """Reads the call as if the constant were an activation, and carries out where its elements went."""
    first = call.arguments.get("self", call.arguments.get("input"))
    assert isinstance(first, Tensor)
    data = builder.constants[first.name]
    scratch = Builder({}, {})
    scratch.input(first.name, data.shape, plain)
    name = call.target.split(".")[1]
    held = READERS[name](At(call, scratch))
    moved = np.empty(data.size, data.dtype)
    moved[held.order.ravel()] = data.ravel()
    return moved.reshape(held.shape)


def _assemble(
    program: Program, builder: Builder, layout: Callable[[Shape], Order], name: str, source: str
) -> Graph:
    inputs = [builder.held[n].value for n, _ in program.inputs]
    input_borders = [_border(n, shape, layout is channels_last) for n, shape in program.inputs]
    outputs, output_borders = [], []
    for output in program.outputs:
        if output not in builder.held:
            raise DeployError(f"the output {output!r} is a constant", where=source or name)
        value, border = _output(builder, output)
        outputs.append(value.name)
        output_borders.append(border)
    graph = Graph(
        name,
        builder.values,
        tuple(builder.nodes),
        tuple(v.name for v in inputs),
        tuple(outputs),
        tuple(input_borders),
        tuple(output_borders),
        source,
        builder.norm_scales,
    )
    return fuse_activations(fold_affine(fold_pads(drop_unused(graph))))


def _output(builder: Builder, name: str) -> tuple[Value, Border]:
    """Where an output lies; a flattened image stays one, and its border says how the caller reads it."""
    held = builder.held[name]
    if len(held.value.shape) == 4 and len(held.shape) not in (3, 4):
        n, h, w, c = held.value.shape
        if h * w > 1 and same_order(held.order, channels_last((n, c, h, w))):
            return held.value, Border(name, layout=Layout(held.shape, (n, c, h, w), (0, 2, 3, 1)))
    value, last = builder.canonical(held)
    return value, _border(name, held.shape, last)


def _border(name: str, shape: Shape, last: bool) -> Border:
    """The source's layout stays the contract for data."""
    permutation = {3: (0, 2, 1), 4: (0, 2, 3, 1)}.get(len(shape))
    if not last or permutation is None:
        return Border(name)
    return Border(name, layout=Layout(shape, shape, permutation))
