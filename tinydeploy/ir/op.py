"""What the graph knows of an operator: the interface that every file in `tinydeploy/ops` fills."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from tinydeploy.errors import DeployError
from tinydeploy.ir.channels import ChannelCoupler, ChannelIds, Kept, required
from tinydeploy.ir.types import Array, Value

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Site:
    """The values around an operator where it stands in a graph."""

    inputs: tuple[Value | None, ...]
    outputs: tuple[Value, ...]

    def input(self, index: int) -> Value:
        """A required input; raises DeployError where it is absent."""
        value = self.inputs[index] if index < len(self.inputs) else None
        if value is None:
            raise DeployError(f"input {index} is missing")
        return value

    def optional(self, index: int) -> Value | None:
        return self.inputs[index] if index < len(self.inputs) else None

    @property
    def output(self) -> Value:
        return self.outputs[0]


class Op(ABC):
    """One operator with its attributes; every concrete one is a frozen dataclass in `tinydeploy/ops`.

    Activations reach `run_integer` and `run_float` with one more axis in front: the samples. A value
    of shape (1, 32, 32, 3) arrives as (samples, 1, 32, 32, 3); a constant arrives with samples = 1.
    """

    kind: ClassVar[str]
    """The name in reports and messages, for example CONV_2D."""

    arity: ClassVar[tuple[int, int]] = (1, 1)
    """Least and greatest number of inputs."""

    in_place: ClassVar[bool] = False
    """Whether element i of the output depends on element i of each equally large input only."""

    @abstractmethod
    def output_shape(self, site: Site) -> Shape:
        """The shape rule; raises DeployError where the inputs do not fit together."""

    @abstractmethod
    def check(self, site: Site) -> None:
        """The support limits, for types and quantization; raises DeployError with fact and hint."""

    @abstractmethod
    def run_integer(self, site: Site, arrays: Sequence[Array | None]) -> Array:
        """The integer reference, exact; its rule's source stands in the docstring."""

    @abstractmethod
    def run_float(self, site: Site, arrays: Sequence[Array | None]) -> Array:
        """The float32 reference."""

    def macs(self, site: Site) -> int:
        """Multiply-accumulates of one inference; bias, pooling and elementwise work count nothing."""
        del site
        return 0

    def couple(self, site: Site, ids: Sequence[ChannelIds | None], coupler: ChannelCoupler) -> ChannelIds:
        """The coupling rule: channel numbers of the output, from those of the inputs (None: a constant).

        By default channels pass through, as in every op that works on each channel by itself.
        """
        del site, coupler
        return required(ids)

    def narrow(self, site: Site, kept: Sequence[Kept | None], output: Kept) -> tuple[Op, dict[int, Array]]:
        """This op and its constants once only some channels are left.

        Args:
            kept: for each activation input the channels that stay; None for a constant.
            output: the channels of the output that stay.

        Returns:
            The op, and the new data of each constant input by its index.
        """
        del site, kept, output
        return self, {}
