"""Comparisons with numbers and choices by them: SIGN and STAIRCASE, which ONNX has no operator for."""

from __future__ import annotations

import math

import numpy as np

from tinydeploy import ops
from tinydeploy.errors import DeployError
from tinydeploy.frontends.onnx_at import At
from tinydeploy.frontends.onnx_layout import signature
from tinydeploy.frontends.onnx_tensor import Compared, Draft, Flow, Known
from tinydeploy.ir.forms import Signs
from tinydeploy.ir.op import Site
from tinydeploy.ops.staircase import MAX_STEPS

_SLACK = 1e-5


def at_least(at: At) -> Compared:
    """GreaterOrEqual of a computed tensor and a number; the first half of SIGN."""
    return Compared(at.flow(0), at.scalar(1, math.nan))


def less(at: At) -> Compared:
    """Less, of a computed tensor and a number; the first half of a step of STAIRCASE."""
    return Compared(at.flow(0), at.scalar(1, math.nan), below=True)


def where(at: At) -> Flow:
    """Where, by a comparison of a computed tensor with a number."""
    condition = at.required(0)
    if not isinstance(condition, Compared):
        raise DeployError("is supported behind GreaterOrEqual and Less only")
    return _step(at, condition) if condition.below else _sign(at, condition)


def _sign(at: At, condition: Compared) -> Flow:
    """Between two numbers, by half way between them."""
    high, low = at.scalar(1, math.nan), at.scalar(2, math.nan)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise DeployError(f"chooses between {low} and {high}, which are not two ascending numbers")
    if not abs(condition.threshold - (low + high) / 2) <= _SLACK * (high - low):
        raise DeployError(f"compares with {condition.threshold}, not with half way between {low} and {high}")
    flow = condition.flow
    draft = at.builder.emit(at.output, ops.Sign(low, high), [flow.draft], at.name)
    return at.fresh(draft, flow.view)


def _step(at: At, condition: Compared) -> Flow:
    """The lowest step of a staircase; what it does not choose is a number, or a staircase on the same tensor.

    Raises:
        DeployError: it is neither, or thresholds do not ascend.
    """
    flow, level = condition.flow, at.scalar(1, math.nan)
    rest = at.required(2)
    if isinstance(rest, Known):
        op = ops.Staircase((condition.threshold,), (level, at.scalar(2, math.nan)))
        _require_finite(op)
        return at.fresh(at.builder.emit(at.output, op, [flow.draft], at.name), flow.view)
    above = at.flow(2)
    step = at.builder.fusible(above, at.single(2))
    if step is None or not isinstance(step.op, ops.Staircase) or step.inputs != [flow.draft]:
        raise DeployError(
            "chooses between a number and a tensor that is no staircase on what is compared",
            hint="supported are nested choices by one tensor: x < t1 ? a : x < t2 ? b : c",
        )
    if signature(above.view) != signature(flow.view):
        raise DeployError("compares and chooses in different orders of axes")
    op = ops.Staircase((condition.threshold, *step.op.thresholds), (level, *step.op.levels))
    _require_finite(op)
    if len(op.thresholds) > MAX_STEPS or not op.thresholds[0] <= op.thresholds[1]:
        raise DeployError(
            f"the thresholds {op.thresholds} do not ascend, or are more than {MAX_STEPS}",
            hint="the lowest comparison comes last in the file",
        )
    step.op, step.name, step.output.name = op, at.name, at.output
    return above


def _require_finite(op: ops.Staircase) -> None:
    if not all(map(math.isfinite, (*op.thresholds, *op.levels))):
        raise DeployError(f"the thresholds {op.thresholds} or the levels {op.levels} are not all finite")


def settle_sign(op: ops.Sign, draft: Draft) -> ops.Sign:
    """SIGN behind which a scale was given: the levels must be what -1 and +1 stand for."""
    q = draft.quant
    wanted = [q.scale * (end - q.zero_point) for end in (-1, 1)]
    if not np.allclose([op.low, op.high], wanted, rtol=0.0, atol=_SLACK * (op.high - op.low)):
        raise DeployError(
            f"the levels {op.low} and {op.high} are not what -1 and +1 stand for at scale {q.scale:.6g} and"
            f" zero point {q.zero_point}",
            hint="the file was changed after tinydeploy wrote it",
        )
    draft.form = Signs()
    return ops.Sign()


def settle_staircase(op: ops.Staircase, x: Draft, draft: Draft) -> ops.Staircase:
    """STAIRCASE behind which a scale was given: in elements of what it reads and gives.

    Levels of another exporter are rounded to the nearest element, as QuantizeLinear does with them.
    """
    if x.dtype.is_float:
        raise DeployError(
            "a staircase on float numbers gives integers",
            hint="put QuantizeLinear and DequantizeLinear in front of it too",
        )
    return op.lowered(Site((x.value(),), (draft.value(),)))
