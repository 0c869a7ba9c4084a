"""A PyTorch network as data: inputs, constants and calls of ATen operators, wherever it was read from.

Both ways in end here, an `nn.Module` through `torch.export` and a `.pt2` file through our own reader, so
that the readers of the operators know neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tinydeploy.errors import DeployError
from tinydeploy.ir.types import Array

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram
    from torch.fx import Node


@dataclass(frozen=True)
class Tensor:
    """A reference to a tensor of the program, by name."""

    name: str


@dataclass(frozen=True)
class Call:
    """One call of an ATen operator.

    Attributes:
        name: unique in the program.
        target: the overload, such as `aten.conv2d.default`.
        arguments: by the names of the operator's schema; tensors are `Tensor`, lists are tuples,
            arguments at their default may be missing.
        outputs: the names of the tensors it returns; None for one that nobody reads.
        where: the path of the module that called it, or "".
    """

    name: str
    target: str
    arguments: Mapping[str, Any]
    outputs: tuple[str | None, ...]
    where: str = ""


@dataclass(frozen=True)
class Program:
    """An exported network.

    Attributes:
        inputs: name and shape of each input, in order; the batch axis is 1.
        constants: parameters, buffers and other constants, in PyTorch's layout.
        paths: the path in the module of each constant that has one, such as `stem.conv.weight`.
        calls: in execution order.
        outputs: names of tensors.
    """

    inputs: tuple[tuple[str, tuple[int, ...]], ...]
    constants: Mapping[str, Array]
    paths: Mapping[str, str]
    calls: tuple[Call, ...]
    outputs: tuple[str, ...]


def require_plain_output(kind: str) -> None:
    """Refuses an output that is not the user's: something that the network changes while it runs."""
    if kind != "user_output":
        raise DeployError(
            f"the network changes its own state while it runs ({kind.replace('_', ' ')})",
            hint="export it in evaluation mode (module.eval()), without counters or caches",
        )


def program_of(exported: ExportedProgram) -> Program:
    """The calls of an exported module.

    Raises:
        DeployError: it changes its own state, or takes something that is no float tensor.
    """
    signature = exported.graph_signature
    constants: dict[str, Array] = {}
    paths: dict[str, str] = {}
    user: list[str] = []
    for spec in signature.input_specs:
        name = getattr(spec.arg, "name", "")
        if spec.kind.name == "USER_INPUT":
            user.append(name)
            continue
        path = spec.target or name
        held = exported.state_dict.get(path, exported.constants.get(path))
        if held is None or not hasattr(held, "detach"):
            raise DeployError(f"the constant {path!r} is no tensor")
        constants[name], paths[name] = array_of(held), path
    for output in signature.output_specs:
        require_plain_output(output.kind.name.lower())
    return Program(
        inputs=tuple((name, _input_shape(exported, name)) for name in user),
        constants=constants,
        paths=paths,
        calls=tuple(_calls(exported)),
        outputs=tuple(getattr(o.arg, "name", "") for o in signature.output_specs),
    )


def array_of(tensor: torch.Tensor) -> Array:
    """A tensor in numpy; every floating type becomes float32."""
    plain = tensor.detach().cpu()
    array: Array = (plain.float() if plain.is_floating_point() else plain).numpy()
    return array


def _input_shape(exported: ExportedProgram, name: str) -> tuple[int, ...]:
    import torch  # noqa: PLC0415  # heavy, and only this frontend needs it

    for node in exported.graph.nodes:
        if node.op == "placeholder" and node.name == name:
            value = node.meta.get("val")
            if not isinstance(value, torch.Tensor) or value.dtype != torch.float32:
                raise DeployError(f"the input {name!r} is no float32 tensor")
            return tuple(int(n) for n in value.shape)
    raise DeployError(f"the input {name!r} is no tensor")


def _calls(exported: ExportedProgram) -> list[Call]:
    nodes = [n for n in exported.graph.nodes if n.op == "call_function"]
    picks = [n for n in nodes if getattr(n.target, "__name__", "") == "getitem"]
    names: dict[tuple[str, int], str] = {(str(n.args[0]), int(n.args[1])): n.name for n in picks}
    # Two reads of one result are the same tensor under two names; the second becomes a copy of the first.
    calls = []
    for node in nodes:
        if node in picks:
            first = names[str(node.args[0]), int(node.args[1])]
            if first != node.name:
                copy = {"self": Tensor(first)}
                calls.append(Call(node.name, "aten.alias.default", copy, (node.name,)))
            continue
        schema = getattr(node.target, "_schema", None)
        if schema is None:
            calls.append(Call(node.name, str(node.target), {}, (node.name,), _where(node)))
            continue
        keys = [argument.name for argument in schema.arguments]
        given = {**dict(zip(keys, node.args, strict=False)), **node.kwargs}
        outputs: tuple[str | None, ...] = (node.name,)
        if len(schema.returns) > 1 or "[]" in "".join(str(r.type) for r in schema.returns):
            count = 1 + max((i for name, i in names if name == node.name), default=0)
            outputs = tuple(names.get((node.name, i)) for i in range(count))
        arguments = {key: _argument(value) for key, value in given.items()}
        calls.append(Call(node.name, str(node.target), arguments, outputs, _where(node)))
    return calls


def _argument(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(_argument(v) for v in value)
    return Tensor(value.name) if hasattr(value, "op") and hasattr(value, "name") else value


def _where(node: Node) -> str:
    """The module path in `nn_module_stack`, whose entries are (path, class)."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return str(stack[-1][0]) if stack else ""
