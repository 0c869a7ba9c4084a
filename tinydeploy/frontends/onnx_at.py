"""One ONNX node where it is read: typed access to its inputs, and what every reader returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tinydeploy.errors import DeployError
from tinydeploy.frontends.onnx_builder import Builder
from tinydeploy.frontends.onnx_check import Attributes
from tinydeploy.frontends.onnx_layout import View
from tinydeploy.frontends.onnx_tensor import Compared, Draft, Flow, Known, Tensor
from tinydeploy.ir.types import Array


@dataclass(frozen=True)
class At:
    """A node, its inputs as they were read, and the graph under construction.

    Attributes:
        name: the node's own name, or that of its output.
        inputs: None where an optional input is absent.
        input_names: "" where an optional input is absent.
        output: the name of the first output.
        uses: how often each tensor is read, graph outputs counted.
        opset: version of the default operator set.
    """

    builder: Builder
    name: str
    attributes: Attributes
    inputs: tuple[Tensor | None, ...]
    input_names: tuple[str, ...]
    output: str
    uses: Mapping[str, int]
    opset: int

    def input(self, index: int) -> Tensor | None:
        return self.inputs[index] if index < len(self.inputs) else None

    def required(self, index: int) -> Tensor:
        tensor = self.input(index)
        if tensor is None:
            raise DeployError(f"input {index} is missing")
        return tensor

    def flow(self, index: int) -> Flow:
        """An input that is computed and stands for real numbers."""
        tensor = self.any_flow(index)
        if not tensor.real:
            raise DeployError(
                f"input {index} is an integer tensor, and this operator works on real numbers",
                hint="put DequantizeLinear in front",
            )
        return tensor

    def any_flow(self, index: int) -> Flow:
        """An input that is computed, real or integer."""
        tensor = self.required(index)
        if isinstance(tensor, Known):
            raise DeployError(f"input {index} is a constant; a computed tensor is supported here")
        if isinstance(tensor, Compared):
            raise DeployError(f"input {index} is a comparison, which only Where takes")
        return tensor

    def known(self, index: int) -> Known:
        """A constant input."""
        tensor = self.required(index)
        if not isinstance(tensor, Known):
            raise DeployError(
                f"input {index} is computed by the model; only a constant is supported here",
                hint="fold the constants first: onnxsim or onnxruntime's offline optimisation",
            )
        return tensor

    def optional_known(self, index: int) -> Known | None:
        return None if self.input(index) is None else self.known(index)

    def integers(self, index: int, most: int = 64) -> tuple[int, ...]:
        """A constant list of integers, such as axes or a shape."""
        data = self.known(index).data
        if data.dtype.kind not in "iu" or data.ndim > 1 or data.size > most:
            raise DeployError(f"input {index} is no list of at most {most} integers")
        return tuple(int(v) for v in data.ravel())

    def scalar(self, index: int, default: float) -> float:
        """A constant number."""
        known = self.optional_known(index)
        if known is None:
            return default
        if known.data.size != 1 or known.data.dtype.kind not in "iuf":
            raise DeployError(f"input {index} is no single number")
        return float(known.real.ravel()[0])

    def single(self, index: int) -> bool:
        """Whether this node alone reads the input."""
        return self.uses.get(self.input_names[index], 0) == 1

    def fresh(self, draft: Draft, view: View, *, like: Flow | None = None) -> Flow:
        """The result of an op; real, or as real as `like`."""
        if like is None:
            return Flow(draft, view, fresh=True)
        return Flow(draft, view, like.real, True, like.unsigned)


def axis_in(axis: int, rank: int) -> int:
    """A non-negative axis; raises DeployError where it does not exist."""
    if not -rank <= axis < rank:
        raise DeployError(f"the axis {axis} does not fit {rank} axes")
    return axis % rank


def vector(known: Known, length: int, what: str) -> Array:
    """A constant of `length` numbers, or one number repeated, as float64."""
    data = known.real
    if data.size not in (1, length) or data.dtype.kind not in "iuf":
        raise DeployError(f"the {what} has shape {data.shape}, not ({length},)")
    return np.broadcast_to(data.ravel().astype(np.float64), (length,))
