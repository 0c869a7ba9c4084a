"""The graph under construction while an ONNX model is read: drafts that get their scale later, and steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tinydeploy import ops
from tinydeploy.errors import DeployError
from tinydeploy.frontends.onnx_layout import (
    STUCK_HINT,
    Factors,
    Shape,
    View,
    common_order,
    input_order,
    lies_as,
    new_view,
    product,
    reshaped,
)
from tinydeploy.frontends.onnx_tensor import Draft, Flow, Known, Step
from tinydeploy.ir import limits
from tinydeploy.ir.forms import Form, Signs
from tinydeploy.ir.graph import Layout
from tinydeploy.ir.op import Op, Site
from tinydeploy.ir.types import Array, DType, Quantization


class OrderNeededError(Exception):
    """A layer needs a graph input in another order; reading starts again with it."""

    def __init__(self, name: str, split: Shape, permutation: tuple[int, ...]) -> None:
        super().__init__(name)
        self.name = name
        self.order = (split, permutation)


@dataclass
class Builder:
    """What has been read so far.

    Attributes:
        orders: split and permutation of graph inputs that are not held in the model's own order.
        shapes: ONNX shapes of the graph inputs.
    """

    orders: dict[str, tuple[Shape, tuple[int, ...]]]
    shapes: dict[str, Shape] = field(default_factory=dict)
    inputs: list[tuple[Draft, Layout | None]] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    producers: dict[Draft, Step] = field(default_factory=dict)
    _reshapes: dict[tuple[Draft, Shape], Draft] = field(default_factory=dict)
    _spent: int = 0
    _requantized: dict[tuple[Draft, Quantization], Draft] = field(default_factory=dict)
    _constants: dict[tuple[object, ...], tuple[Draft, object]] = field(default_factory=dict)

    def spend(self, elements: int) -> None:
        """Counts the work on constants; a hostile model asks for the same large one thousands of times.

        Raises:
            DeployError: all of it together is beyond what an honest model takes.
        """
        self._spent += elements
        if self._spent > limits.MAX_TOTAL_ELEMENTS:
            raise DeployError(f"constants of over {limits.MAX_TOTAL_ELEMENTS} elements are brought into form")

    def input(self, name: str, dtype: DType, shape: Shape) -> Flow:
        """A graph input; uint8 is brought to int8 at once."""
        self.shapes[name] = shape
        view = new_view(name, shape)
        if name in self.orders:
            view = reshaped(new_view(name, *self.orders[name]), shape)
        held, layout = held_as(view, self.orders.get(name))
        draft = Draft(name, dtype, held)
        self.inputs.append((draft, layout))
        if dtype is DType.UINT8:
            signed = Draft(f"{name}/int8", DType.INT8, held, unsigned=draft)
            self._add(Step(signed.name, ops.Quantize(), [draft], signed))
            return Flow(signed, view, real=False, unsigned=True)
        return Flow(draft, view, real=dtype.is_float)

    def emit(
        self,
        name: str,
        op: Op,
        inputs: Sequence[Draft],
        node: str = "",
        quantization: Quantization | None = None,
        dtype: DType | None = None,
    ) -> Draft:
        """Adds a step; its output is as float or integer as its first input, unless `dtype` says.

        Raises:
            DeployError: the shapes do not fit, or float and quantized operands are mixed.
        """
        values = tuple(d.value() for d in inputs)
        if dtype is None:
            dtype = DType.FLOAT32 if inputs[0].dtype.is_float else DType.INT8
            if any(d.dtype.is_float != dtype.is_float for d in inputs):
                raise DeployError(
                    "some operands are quantized and some are not",
                    hint="quantize all of them, constants included, or none",
                )
        for draft in inputs:
            if draft.pending and draft.dtype is not DType.INT32:
                _ = draft.quant
        shape = op.output_shape(Site(values, ()))
        if math.prod(shape) > limits.MAX_ELEMENTS:
            raise DeployError(f"the output {name!r} has the shape {shape}, which is beyond the limit")
        output = Draft(name, dtype, shape, quantization, form=_form_of_copy(op, inputs, quantization))
        self._add(Step(node or name, op, list(inputs), output))
        return output

    def _add(self, step: Step) -> None:
        self.steps.append(step)
        self.producers[step.output] = step

    def step_of(self, draft: Draft) -> Step | None:
        """What computes `draft`; None for a graph input or a constant."""
        return self.producers.get(draft)

    def fusible(self, flow: Flow, single: bool) -> Step | None:
        """The step behind a tensor that nothing else reads and that nothing quantized in between."""
        return self.step_of(flow.draft) if single and flow.fresh else None

    def constant(
        self,
        key: tuple[object, ...],
        known: Known,
        data: Array,
        axis: int | None = None,
        form: Form | None = None,
    ) -> Draft:
        """A constant of the graph.

        Args:
            key: what was done to `known`; the same constant brought to the same form is held once.
            axis: where the quantized axis of `known` went.
            form: how it is stored, in its new order of axes.

        Raises:
            DeployError: it holds NaN or infinity, or is of a type that the graph has not.
        """
        whole = (id(known.data), known.quantization, *key)
        if whole not in self._constants:
            self.spend(data.size)
            draft = make_constant(known, data, axis)
            draft.form = form
            # The array is kept with its number, which is its own only while it lives.
            self._constants[whole] = (draft, known.data)
        return self._constants[whole][0]

    def place(self, flow: Flow, groups: Sequence[Sequence[int]]) -> Draft:
        """What holds `flow` in dimensions that are products of these axes, in this order.

        Raises:
            OrderNeededError: a graph input must be held in another order for that.
            DeployError: the order would need a transposition.
        """
        order = [a for group in groups for a in group]
        shape = tuple(math.prod(flow.view.shape[a] for a in group) for group in groups)
        singles = order if all(len(g) <= 1 for g in groups) else None
        return self.place_factors(flow, flow.view.wanted(order), shape, singles)

    def place_factors(
        self, flow: Flow, wanted: Factors, shape: Shape, order: Sequence[int] | None = None
    ) -> Draft:
        """Like `place`, for any sequence of the view's factors."""
        view = flow.view
        if wanted != view.memory:
            for name in self.shapes.keys() - self.orders.keys():
                found = input_order(view, name, wanted)
                if found is not None:
                    raise self._order_needed(name, view, order, found)
            raise DeployError(
                f"it needs the elements of a tensor of shape {view.shape} in another order", hint=STUCK_HINT
            )
        if flow.draft.shape != shape and order is not None:
            for name in self.shapes.keys() - self.orders.keys():
                if view.axes == new_view(name, self.shapes[name]).axes and len(order) == len(view.axes):
                    raise OrderNeededError(name, view.shape, tuple(order))
        return self.shaped(flow.draft, shape, flow.label)

    def _order_needed(
        self, name: str, view: View, order: Sequence[int] | None, found: tuple[Shape, tuple[int, ...]]
    ) -> OrderNeededError:
        """Whole axes where they are the input's own, so that those of size 1 get a place too."""
        own = new_view(name, self.shapes[name]).axes
        if order is not None and len(order) == len(own) and view.axes == own:
            return OrderNeededError(name, view.shape, tuple(order))
        return OrderNeededError(name, *found)

    def shaped(self, draft: Draft, shape: Shape, label: str = "") -> Draft:
        """The same memory in other dimensions, called `label` where a step is needed for that."""
        if draft.shape == shape:
            return draft
        before = self.step_of(draft)
        if before is not None and isinstance(before.op, ops.Reshape):
            return self.shaped(before.inputs[0], shape, label)
        if (draft, shape) not in self._reshapes:
            name = label or f"{draft.name}/{'x'.join(map(str, shape))}"
            self._reshapes[draft, shape] = self.emit(
                name, ops.Reshape(shape), [draft], quantization=draft.quantization
            )
        return self._reshapes[draft, shape]

    def requantized(self, draft: Draft, name: str, quantization: Quantization) -> Draft:
        """QUANTIZE of a float or an integer value; the same one is made once."""
        key = (draft, quantization)
        if key not in self._requantized:
            self._requantized[key] = self.emit(
                name, ops.Quantize(), [draft], quantization=quantization, dtype=DType.INT8
            )
        return self._requantized[key]

    def common_order(self, flows: Sequence[Flow]) -> tuple[int, ...]:
        """An order of axes for all these tensors; one that needs a graph input in another order, if any."""
        undecided = self.shapes.keys() - self.orders.keys()
        computed = [f for f in flows if not any(x.origin in undecided for x in f.view.memory)]
        rest = [f for f in flows if f not in computed]
        return common_order([f.view for f in (*computed, *rest)])


def held_as(view: View, order: tuple[Shape, tuple[int, ...]] | None) -> tuple[Shape, Layout | None]:
    """The held shape of a graph input, and how the source orders it otherwise."""
    shape = view.shape
    if order is None:
        return shape, None
    split, permutation = order
    if split != shape:
        # Factors leave out axes of size 1; one stands for the sample.
        split, permutation = (1, *split), (0, *(p + 1 for p in permutation))
    return tuple(split[p] for p in permutation), Layout(shape, split, permutation)


def output_layout(view: View) -> tuple[Factors, Shape, Layout | None]:
    """The memory, held shape and layout of a graph output."""
    shape, rank = view.shape, len(view.axes)
    if lies_as(view, range(rank)):
        return view.memory, shape, None
    order = common_order([view])
    if lies_as(view, order):
        return view.memory, tuple(shape[a] for a in order), Layout(shape, shape, order)
    own = [f for axis in view.axes for f in axis]
    split = (1, *(f.size for f in own))
    permutation = (0, *(own.index(f) + 1 for f in view.memory))
    assert product(own) == view.elements
    return view.memory, tuple(split[p] for p in permutation), Layout(shape, split, permutation)


_COPYING = ops.AveragePool2D | ops.Concatenation | ops.MaxPool2D | ops.Pad | ops.Reshape


def _form_of_copy(op: Op, inputs: Sequence[Draft], quantization: Quantization | None) -> Form | None:
    """Of what an op gives that only moves, chooses or averages elements: that of all its inputs."""
    forms = {d.form for d in inputs}
    if quantization is None or not isinstance(op, _COPYING) or len(forms) > 1:
        return None
    form = forms.pop()
    # The mean of signs may be 0.
    return None if isinstance(form, Signs) and isinstance(op, ops.AveragePool2D) else form


def make_constant(known: Known, data: Array, axis: int | None = None) -> Draft:
    """A draft with data; uint8 becomes int8 with a zero point 128 lower."""
    if data.dtype == np.uint8:
        data = (data.astype(np.int16) - 128).astype(np.int8)
    elif data.dtype.kind == "f":
        with np.errstate(over="ignore"):
            data = data.astype(np.float32)
        if not np.isfinite(data).all():
            raise DeployError(f"the constant {known.name!r} holds a NaN or an infinity")
    elif data.dtype.name not in {t.value for t in DType}:
        raise DeployError(f"the constant {known.name!r} is {data.dtype}, which no layer takes")
    quantization = known.quantization
    if quantization is not None:
        moved = None if quantization.axis is None else axis
        low = 128 if known.data.dtype == np.uint8 else 0
        quantization = Quantization(
            quantization.scales, tuple(z - low for z in quantization.zero_points), moved
        )
    copy = np.array(data, order="C")
    copy.setflags(write=False)
    return Draft(known.name, DType(copy.dtype.name), tuple(copy.shape), quantization, copy)
