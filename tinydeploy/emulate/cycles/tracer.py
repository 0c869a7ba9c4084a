"""Chooses how a run is counted: C callbacks where a native compiler is, else Python's."""

from __future__ import annotations

from tinydeploy.emulate.cpu import Cpu
from tinydeploy.emulate.cycles.loads import Load
from tinydeploy.emulate.cycles.native import NativeTracer, load_library
from tinydeploy.emulate.cycles.pure import PureTracer
from tinydeploy.emulate.cycles.trace import Plan, Tracer, Way


def make_tracer(cpu: Cpu, plan: Plan, way: Way = "none", loads: tuple[Load, ...] = ()) -> Tracer:
    """Hooks on ``cpu``, which has not run yet.

    Args:
        way: how reads of the flash are seen.
        loads: the loads of the image, for the way "addresses".
    """
    library = load_library()
    if library is None or not cpu.takes_native_hooks:
        return PureTracer(cpu, plan, way, loads)
    return NativeTracer(library, cpu, plan, way, loads)
