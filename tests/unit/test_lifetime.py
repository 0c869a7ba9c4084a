"""How full the arena is at each step."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tinydeploy.plan import Placement, Plan
from tinydeploy.plan.arena import lower_bound, pack
from tinydeploy.plan.lifetime import buffers_above, live_bytes
from tinydeploy.plan.storage import Buffer, Storage

NODES = 6


def plan_of(*buffers: Buffer) -> Plan:
    placements = pack(buffers)
    end = max((p.end for p in placements), default=0)
    return Plan(end, lower_bound(buffers), placements, Storage(buffers, {}, {}, {}, frozenset()))


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    count = draw(st.integers(1, 8))
    buffers = []
    for i in range(count):
        first = draw(st.integers(-1, NODES))
        last = draw(st.integers(first, NODES))
        buffers.append(Buffer(f"b{i}", 4 * draw(st.integers(1, 50)), first, last, (f"b{i}",)))
    return plan_of(*buffers)


def test_a_chain_holds_an_input_and_an_output_at_each_node() -> None:
    plan = plan_of(
        Buffer("x", 100, -1, 0, ("x",)), Buffer("y", 40, 0, 1, ("y",)), Buffer("z", 8, 1, 2, ("z",))
    )
    assert live_bytes(plan, 2) == {-1: 100, 0: 140, 1: 48, 2: 8}
    assert {b.name for b in buffers_above(plan, 2, 50)} == {"x", "y"}
    assert {b.name for b in buffers_above(plan, 2, 45)} == {"x", "y", "z"}


def test_bytes_that_two_buffers_share_count_once() -> None:
    plan = plan_of(Buffer("x", 100, -1, 0, ("x",)), Buffer("y", 80, 0, 1, ("y",), "x", 16))
    assert plan.arena_bytes < 180
    assert live_bytes(plan, 1) == {-1: 100, 0: plan.arena_bytes, 1: 80}


def test_where_nothing_exceeds_the_limit_the_peak_counts() -> None:
    plan = plan_of(Buffer("x", 100, -1, 0, ("x",)), Buffer("z", 8, 1, 2, ("z",)))
    assert [b.name for b in buffers_above(plan, 2, 10_000)] == ["x"]


@given(plans())
def test_no_step_is_fuller_than_the_arena_and_the_fullest_is_the_lower_bound(plan: Plan) -> None:
    live = live_bytes(plan, NODES)
    assert max(live.values()) == plan.lower_bound_bytes <= plan.arena_bytes
    assert set(live) == set(range(-1, NODES + 1))


@given(plans(), st.integers(0, 400))
def test_each_buffer_above_a_limit_is_live_at_a_step_above_it(plan: Plan, limit: int) -> None:
    live = live_bytes(plan, NODES)
    found = buffers_above(plan, NODES, limit)
    above = [s for s, n in live.items() if n > limit] or [
        s for s, n in live.items() if n == max(live.values())
    ]
    wanted = {p.buffer for p in plan.placements if any(p.buffer.first <= s <= p.buffer.last for s in above)}
    assert set(found) == wanted


def test_a_placement_ends_where_its_bytes_end() -> None:
    assert Placement(Buffer("x", 10, 0, 0, ()), 4).end == 14
