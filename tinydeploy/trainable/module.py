"""The trainable form of a graph: its constants are parameters, and flow back into a graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor, nn

from tinydeploy import ops
from tinydeploy.errors import DeployError
from tinydeploy.ir.graph import Graph, Node
from tinydeploy.ir.op import Site
from tinydeploy.ir.types import Array, constant
from tinydeploy.ir.verify import site_of
from tinydeploy.trainable.forward import FORWARD, clamp, required
from tinydeploy.trainable.normalization import (
    MOMENTUM,
    Normalization,
    Statistics,
    fold_into,
    normalized_nodes,
)
from tinydeploy.trainable.surrogates import Slope, sign, wide

Factors = Mapping[str, Tensor]
"""By node name, (outputs,)."""


class Simulation(Protocol):
    """What quantization-aware training adds: int8 as training sees it, and the integer rule itself."""

    def constant(self, node: Node, index: int, x: Tensor) -> Tensor:
        """A node's constant input as quantization leaves it, with straight-through gradients."""

    def activation(self, name: str, x: Tensor) -> Tensor:
        """An activation as quantization leaves it, with straight-through gradients."""

    @property
    def normalizes(self) -> bool:
        """Whether training goes better with batch normalization."""

    def paces(self) -> Mapping[str, float]:
        """How many times the learning rate weights move by, by the name of the constant."""

    def begin_epoch(self, number: int, epochs: int) -> None:
        """An epoch begins, counted from 0."""

    def penalty(self) -> Tensor | None:
        """What joins the loss of a batch."""

    def learned(self, graph: Graph) -> Graph:
        """A float graph with what is learned beside its constants: the steps of each STAIRCASE."""

    def lower(self, graph: Graph, factors: Factors) -> Graph:
        """The integer graph of a float graph with the ranges as they are now.

        Args:
            factors: what batch normalization multiplied the weights of each output by.
        """

    def evaluate(self, graph: Graph, factors: Factors, inputs: Sequence[Array]) -> tuple[Array, ...]:
        """The outputs of the integer engine for real inputs, in real units."""


class Trainable(nn.Module):
    """A float graph as a module with the numerics of the float engine.

    Attributes:
        graph: the graph that it was made from; its weights stay as they were.
        simulation: None for float training. With one, training sees simulated quantization, and
            evaluation mode runs the integer engine.
        surrogate: what stands in for the gradient of a sign.
        norms: by node name, the batch normalizations that `normalize` put in; folded by `to_graph`.

    Raises:
        DeployError: the graph is not float, or holds an op without a trainable form.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        _check(graph)
        self.graph = graph
        self.simulation: Simulation | None = None
        self.surrogate: Slope = wide
        self.norms = nn.ModuleDict()
        self._norm_of: dict[str, str] = {}
        self._attributes: dict[str, str] = {}
        for i, value in enumerate(v for v in graph.constants() if v.dtype.is_float):
            # PyTorch forbids dots in the names of parameters.
            attribute = f"p{i}_{value.name.replace('.', '_')}"
            # A copy in float32: the graph's own data is read-only.
            self.register_parameter(attribute, nn.Parameter(torch.tensor(value.array)))
            self._attributes[value.name] = attribute

    def weight(self, name: str) -> nn.Parameter:
        """The parameter of the constant `name` of the graph, in the graph's own layout."""
        return self.get_parameter(self._attributes[name])

    def pace(self, parameter: str) -> float:
        """How many times the learning rate one of its parameters moves by."""
        paces = {} if self.simulation is None else self.simulation.paces()
        return {self._attributes[name]: pace for name, pace in paces.items()}.get(parameter, 1.0)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Outputs (samples, *shape) for inputs (samples, *shape), NHWC, as the engine takes them.

        In evaluation mode with a simulation the integer engine answers, and no gradient flows.
        """
        if self.simulation is not None and not self.training:
            return self._evaluate(self.simulation, inputs)
        values = self.values(*inputs)
        return tuple(values[name] for name in self.graph.outputs)

    def logits(self, *inputs: Tensor) -> Tensor:
        """The only output, or what goes into the SOFTMAX or LOGISTIC that ends the graph."""
        name, factor = self.logits_name()
        return self.values(*inputs)[name] * factor

    def logits_name(self) -> tuple[str, float]:
        """The value that holds the logits, and the factor that it is multiplied by.

        Raises:
            DeployError: the graph has several outputs.
        """
        if len(self.graph.outputs) != 1:
            raise DeployError(
                f"the model has {len(self.graph.outputs)} outputs; training takes one",
                where=self.graph.source,
            )
        output = self.graph.outputs[0]
        for node in reversed(self.graph.nodes):
            if node.outputs[0] != output:
                continue
            if isinstance(node.op, ops.Reshape) and node.inputs[0] is not None:
                output = node.inputs[0]
            elif isinstance(node.op, ops.Softmax | ops.Logistic) and node.inputs[0] is not None:
                return node.inputs[0], node.op.beta if isinstance(node.op, ops.Softmax) else 1.0
        return self.graph.outputs[0], 1.0

    def normalize(self, x: Tensor, wanted: Mapping[str, Statistics] | None = None) -> dict[str, Tensor]:
        """Puts a batch normalization behind every convolution that can have one.

        Args:
            x: samples (samples, *shape of the graph's one input) that set where the statistics start.
            wanted: by node, the mean and variance (channels,) that its outputs are to have; without, they
                keep those that they have, and nothing changes.

        Returns:
            Every activation of these samples by name.
        """
        for i, node in enumerate(normalized_nodes(self.graph, self.logits_name()[0])):
            self._norm_of[node.name] = key = f"n{i}"
            self.norms[key] = norm = Normalization(self.graph.value(node.outputs[0]).shape[-1])
            norm.wanted = None if wanted is None else wanted.get(node.name)
            norm.measuring = True
        with torch.no_grad():
            values = self.values(x)
        for norm in self._normalizations():
            norm.measuring = False
        return values

    def is_normalized(self, node: str) -> bool:
        """Whether `normalize` put a batch normalization behind the node of that name."""
        return node in self._norm_of

    def statistics(self) -> dict[str, Statistics]:
        """Mean and variance (channels,) of each normalized node's outputs, before its activation."""
        norms = {name: self.norms[key] for name, key in self._norm_of.items()}
        return {name: n.statistics() for name, n in norms.items() if isinstance(n, Normalization)}

    def settle(self, batches: Iterable[Tensor]) -> None:
        """Sets the running statistics to their mean over the batches, with the weights as they are now.

        The average that training kept lags behind the weights. Source: Wu and Johnson 2021, "Rethinking
        'Batch' in BatchNorm", section 3 (precise batch norm).
        """
        was, norms = self.training, self._normalizations()
        self.train()
        # The integers of the statistics are those that will run: rounded to the nearest, ranges as they are.
        if isinstance(self.simulation, nn.Module):
            self.simulation.eval()
        with torch.no_grad():
            for count, x in enumerate(batches, start=1):
                for norm in norms:
                    norm.momentum = 1.0 / count
                self.values(x)
        for norm in norms:
            norm.momentum = MOMENTUM
        self.train(was)

    def _normalizations(self) -> list[Normalization]:
        return [m for m in self.norms.values() if isinstance(m, Normalization)]

    def values(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Every activation by name, as training sees them."""
        simulation = self.simulation
        values = dict(zip(self.graph.inputs, inputs, strict=True))
        if simulation is not None:
            values = {name: simulation.activation(name, x) for name, x in values.items()}
        for node in self.graph.nodes:
            site = site_of(self.graph, node)
            operands = [self._operand(values, node, i) for i in range(len(node.inputs))]
            y = self._run_node(node, site, operands)
            name = node.outputs[0]
            values[name] = y if simulation is None else simulation.activation(name, y)
        return values

    def _run_node(self, node: Node, site: Site, operands: list[Tensor | None]) -> Tensor:
        if isinstance(node.op, ops.Sign):
            return sign(required(operands, 0), node.op.low, node.op.high, self.surrogate)
        if isinstance(node.op, ops.Staircase) and self.simulation is not None:
            # The simulation of its output makes the steps, and learns them.
            return required(operands, 0)
        norm = self._norm_of.get(node.name)
        if norm is None or not isinstance(node.op, ops.Conv2D | ops.DepthwiseConv2D):
            return FORWARD[type(node.op)](node.op, site, operands)
        linear = replace(node.op, activation=ops.Activation.NONE)
        y: Tensor = self.norms[norm](FORWARD[type(linear)](linear, site, operands))
        return clamp(y, node.op.activation)

    def to_graph(self) -> Graph:
        """The graph with the weights as they are now."""
        now = {name: self.get_parameter(a).detach() for name, a in self._attributes.items()}
        for node in self.graph.nodes:
            norm = self.norms[self._norm_of[node.name]] if node.name in self._norm_of else None
            if isinstance(norm, Normalization):
                weights, bias = str(node.inputs[1]), str(node.inputs[2])
                now[weights], now[bias] = fold_into(node, now[weights], now[bias], norm)
        values = dict(self.graph.values)
        values.update({name: constant(name, data.cpu().numpy()) for name, data in now.items()})
        graph = replace(self.graph, values=values)
        return graph if self.simulation is None else self.simulation.learned(graph)

    def factors(self) -> dict[str, Tensor]:
        """What `to_graph` multiplies the weights of each normalized node's outputs by."""
        norms = {name: self.norms[key] for name, key in self._norm_of.items()}
        return {name: n.fold()[0] for name, n in norms.items() if isinstance(n, Normalization)}

    def to_quantized_graph(self) -> Graph:
        """The integer graph that evaluation mode runs.

        Raises:
            DeployError: there is no simulation, or the graph cannot be quantized.
        """
        if self.simulation is None:
            raise DeployError(
                "the module was not prepared for quantization-aware training", where=self.graph.source
            )
        return self.simulation.lower(self.to_graph(), self.factors())

    def _operand(self, values: dict[str, Tensor], node: Node, index: int) -> Tensor | None:
        name = node.inputs[index]
        if name is None:
            return None
        attribute = self._attributes.get(name)
        if attribute is None:
            return values[name]
        parameter = self.get_parameter(attribute)
        return parameter if self.simulation is None else self.simulation.constant(node, index, parameter)

    def _evaluate(self, simulation: Simulation, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        arrays = [x.detach().cpu().numpy() for x in inputs]
        outputs = simulation.evaluate(self.to_graph(), self.factors(), arrays)
        return tuple(torch.from_numpy(y).to(inputs[0].device) for y in outputs)


def _check(graph: Graph) -> None:
    where = graph.source or graph.name
    if any(not v.dtype.is_float for v in graph.values.values()):
        raise DeployError(
            "the model is quantized already, and only float models are trained",
            where=where,
            hint="start from the float model",
        )
    for node in graph.nodes:
        if type(node.op) not in FORWARD:
            raise DeployError("has no trainable form", where=f"{where}: {node.op.kind} {node.name!r}")
