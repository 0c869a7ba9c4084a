"""The memory plan: nothing that lives overlaps, the arena is small, and the engine can run inside it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from graphs import GraphBuilder, add, conv_2d, fully_connected, relu, reshape, softmax
from native import telling_inputs
from wiring_cases import WIRING, random_network

from tinydeploy.engine import run
from tinydeploy.ir.graph import Graph
from tinydeploy.ir.types import Array
from tinydeploy.ir.verify import site_of
from tinydeploy.ops import Activation, Reshape
from tinydeploy.passes.outputs import copy_outputs
from tinydeploy.plan import Placement, Plan, plan_memory
from tinydeploy.plan.arena import ALIGNMENT, lower_bound, pack
from tinydeploy.plan.kernels import choose_kernels
from tinydeploy.plan.storage import Buffer, Storage, assign_storage

NETWORKS = [pytest.param(seed, marks=[pytest.mark.slow] * (seed >= 10)) for seed in range(40)]


def buffer(index: int, size: int, first: int, last: int) -> Buffer:
    return Buffer(f"b{index}", size, first, last, ())


def random_buffers(seed: int, count: int, *, largest: int = 500) -> list[Buffer]:
    rng = np.random.default_rng(seed)
    starts = rng.integers(-1, count, count)
    return [
        buffer(i, int(rng.integers(1, largest)), int(s), int(s + rng.integers(0, 5)))
        for i, s in enumerate(starts)
    ]


def random_chain(seed: int, count: int) -> list[Buffer]:
    """The activations of a chain of layers: each lives from its layer to the next."""
    sizes = np.random.default_rng(seed).integers(1, 3000, count)
    return [buffer(i, int(size), i - 1, i) for i, size in enumerate(sizes)]


def end(placements: Sequence[Placement]) -> int:
    return max(p.offset + p.buffer.bytes for p in placements)


def assert_disjoint(placements: Sequence[Placement]) -> None:
    """Byte by byte at every moment: no byte has two owners, but for a layer's output over its dying input."""
    moments = range(min(p.buffer.first for p in placements), max(p.buffer.last for p in placements) + 1)
    for moment in moments:
        owners = np.zeros(end(placements), np.int64)
        live = [p for p in placements if p.buffer.first <= moment <= p.buffer.last]
        read = {p.buffer.over for p in live}
        for p in live:
            if p.buffer.name in read:
                over = next(q for q in live if q.buffer.over == p.buffer.name)
                assert over.buffer.first == moment == p.buffer.last
                if over.offset + over.buffer.lead <= p.offset:
                    # What the two have in common belongs to the output from here on.
                    owners[max(p.offset, over.end) : p.end] += 1
                    continue
            owners[p.offset : p.offset + p.buffer.bytes] += 1
        assert owners.max(initial=0) <= 1


def live_bytes(buffers: Sequence[Buffer]) -> int:
    """The most bytes that are in use at any moment, without alignment."""
    moments = {b.first for b in buffers}
    return max(sum(b.bytes for b in buffers if b.first <= t <= b.last) for t in moments)


@pytest.mark.parametrize("seed", [pytest.param(s, marks=[pytest.mark.slow] * (s % 3 > 0)) for s in range(60)])
def test_random_buffers_are_packed(seed: int) -> None:
    buffers = random_buffers(seed, 1 + seed % 25)
    placements = pack(buffers)
    assert sorted(p.buffer.name for p in placements) == sorted(b.name for b in buffers)
    assert all(p.offset >= 0 and p.offset % ALIGNMENT == 0 for p in placements)
    assert [p.offset for p in placements] == sorted(p.offset for p in placements)
    assert_disjoint(placements)
    assert live_bytes(buffers) <= lower_bound(buffers) <= end(placements)
    assert pack(buffers) == placements
    assert end(pack(buffers[::-1])) == end(placements)


@pytest.mark.parametrize("seed", range(25))
def test_a_chain_needs_its_two_largest_neighbours_and_no_more(seed: int) -> None:
    buffers = random_chain(seed, 2 + seed)
    aligned = [replace(b, bytes=-(-b.bytes // ALIGNMENT) * ALIGNMENT) for b in buffers]
    assert end(pack(aligned)) == live_bytes(aligned) == lower_bound(aligned)
    # Of three neighbours at most two can end beside the arena's end, so odd sizes cost less than a word.
    assert 0 <= end(pack(buffers)) - lower_bound(buffers) < ALIGNMENT


@pytest.mark.parametrize("seed", [pytest.param(s, marks=[pytest.mark.slow] * (s >= 30)) for s in range(120)])
def test_a_chain_whose_layers_write_over_their_inputs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    plain = random_chain(seed, 2 + seed % 12)
    over = [plain[0]]
    for before, b in itertools.pairwise(plain):
        lead = int(rng.integers(0, 800))
        over.append(replace(b, over=before.name, lead=lead) if rng.random() < 0.8 else b)
        over.append(Buffer(f"scratch {b.name}", int(rng.integers(1, 400)), b.first, b.first, ()))
    placements = pack(over)
    assert_disjoint(placements)
    assert lower_bound(over) <= end(placements)
    assert end(placements) <= end(pack([replace(b, over=None, lead=0) for b in over]))


def test_one_layer_over_its_input_needs_the_larger_and_the_lead() -> None:
    x = buffer(0, 1000, -1, 0)
    y = replace(buffer(1, 800, 0, 1), over="b0", lead=48)
    assert end(pack([x, y])) == lower_bound([x, y]) == 1048
    far = replace(y, lead=5000)
    assert end(pack([x, far])) == lower_bound([x, far]) == 1800


@pytest.mark.parametrize("seed", range(25))
def test_few_buffers_are_packed_as_well_as_any_order_packs_them(seed: int) -> None:
    buffers = random_buffers(1000 + seed, 5, largest=60)

    def first_fit(order: Sequence[Buffer]) -> int:
        placed: list[Placement] = []
        for b in order:
            offset = 0
            while any(
                offset < p.offset + p.buffer.bytes and p.offset < offset + b.bytes
                for p in placed
                if b.first <= p.buffer.last and p.buffer.first <= b.last
            ):
                offset += ALIGNMENT
            placed.append(Placement(b, offset))
        return end(placed)

    assert end(pack(buffers)) == min(map(first_fit, itertools.permutations(buffers)))


def test_the_search_finds_what_first_fit_does_not() -> None:
    sizes = [(20, 0, 1), (8, 1, 3), (4, 2, 2), (8, 3, 4), (16, 2, 4)]
    buffers = [buffer(i, *given) for i, given in enumerate(sizes)]
    # By size: 20 and 16 at 0 (never live together), 8 (1..3) at 20 above the 20, 8 (3..4) at 28 above that.
    assert lower_bound(buffers) == 32
    assert end(pack(buffers)) == 32


@pytest.mark.parametrize("count", [1100, pytest.param(2500, marks=pytest.mark.slow)])
def test_more_buffers_than_python_has_stack(count: int) -> None:
    buffers = random_chain(7, count)
    placements = pack(buffers)
    assert len(placements) == count
    assert end(placements) >= lower_bound(buffers)


def test_no_buffer_at_all() -> None:
    assert pack([]) == ()
    assert lower_bound([]) == 0


def run_in_arena(graph: Graph, plan: Plan, inputs: Sequence[Array]) -> list[Array]:
    """The engine's ops on one sample, every activation in the planned arena and nowhere else."""
    arena = np.random.default_rng(0).integers(0, 256, plan.arena_bytes, np.uint8)

    def place(name: str) -> Array:
        value = graph.value(name)
        start = plan.offset_of(name)
        return arena[start : start + value.bytes].view(value.dtype.numpy).reshape(value.shape)

    for name, x in zip(graph.inputs, inputs, strict=True):
        place(name)[...] = x
    for node in graph.nodes:
        operands = [
            None if n is None else (graph.value(n).data if graph.value(n).is_constant else place(n))
            for n in node.inputs
        ]
        y = node.op.run_integer(
            site_of(graph, node), [None if x is None else x.copy()[None] for x in operands]
        )
        scratch = plan.scratch_offset(node.name)
        if scratch is not None:
            sizes = {b.name: b.bytes for b in plan.storage.buffers}
            arena[scratch : scratch + sizes[plan.storage.scratch_of[node.name]]] = 0xA5
            # The kernel still reads its input after it has filled the scratch.
            again = [None if x is None else x.copy()[None] for x in operands]
            assert np.array_equal(node.op.run_integer(site_of(graph, node), again), y)
        if node.outputs[0] not in plan.storage.view_of:
            place(node.outputs[0])[...] = y[0]
        assert np.array_equal(place(node.outputs[0]), y[0])
    return [place(name).copy() for name in graph.outputs]


def assert_runs_in_its_arena(graph: Graph) -> None:
    plan = plan_memory(graph)
    inputs = telling_inputs(graph, 1)
    expected = run(graph, inputs)
    for i in range(len(inputs[0])):
        outputs = run_in_arena(graph, plan, [x[i] for x in inputs])
        for y, z in zip(outputs, expected, strict=True):
            assert np.array_equal(y, z[i])


@pytest.mark.parametrize("seed", NETWORKS)
def test_a_random_network_runs_in_its_arena(seed: int) -> None:
    assert_runs_in_its_arena(random_network(seed))


@pytest.mark.parametrize("name", WIRING)
def test_a_wiring_runs_in_its_arena(name: str) -> None:
    assert_runs_in_its_arena(copy_outputs(WIRING[name]()))


@pytest.mark.parametrize("seed", NETWORKS)
def test_the_plan_of_a_random_network(seed: int) -> None:
    graph = random_network(seed)
    plan = plan_memory(graph)
    assert_disjoint(plan.placements)
    assert plan.arena_bytes == end(plan.placements) >= plan.lower_bound_bytes
    assert plan == plan_memory(random_network(seed))
    shuffled = replace(graph, values=dict(reversed(graph.values.items())))
    assert plan_memory(shuffled).placements == plan.placements
    activations = {v.name for v in graph.values.values() if not v.is_constant}
    assert set(plan.storage.buffer_of) == activations
    assert {m for b in plan.storage.buffers for m in b.members} == activations


def portable_storage(graph: Graph) -> Storage:
    """With the portable kernels."""
    return assign_storage(graph, choose_kernels(graph))


def readers_after(graph: Graph, name: str, index: int) -> bool:
    later = graph.nodes[index + 1 :]
    return name in graph.outputs or any(name in node.inputs for node in later)


@pytest.mark.parametrize("seed", NETWORKS)
def test_only_a_dying_input_is_written_over(seed: int) -> None:
    graph = random_network(seed)
    storage = portable_storage(graph)
    for index, node in enumerate(graph.nodes):
        output = node.outputs[0]
        shared = [
            n
            for n in node.inputs
            if n is not None
            and not graph.value(n).is_constant
            and storage.buffer_of[n] == storage.buffer_of[output]
        ]
        if output in storage.view_of or not shared:
            continue
        assert node.op.in_place
        assert graph.value(shared[0]).bytes == graph.value(output).bytes
        # Neither the input nor anything that shows the same elements is read later.
        seen = storage.view_of.get(shared[0], shared[0])
        same = {seen, shared[0], *(v for v, root in storage.view_of.items() if root == seen)} - {output}
        assert not any(readers_after(graph, name, index) for name in same)


def storage_of(graph: Graph) -> dict[str, str]:
    return portable_storage(graph).buffer_of


def test_an_elementwise_op_takes_the_place_of_its_dying_input() -> None:
    b = GraphBuilder(0)
    x = conv_2d(b, x=b.input((1, 4, 4, 2)), outputs=2)
    y = relu(b, x=x, activation=Activation.RELU6)
    graph = b.graph(conv_2d(b, x=y))
    assert storage_of(graph)[y.name] == storage_of(graph)[x.name]


def test_an_input_that_is_read_later_is_not_written_over() -> None:
    b = GraphBuilder(0)
    x = conv_2d(b, x=b.input((1, 4, 4, 2)), outputs=2)
    y = relu(b, x=x, activation=Activation.RELU6)
    graph = b.graph(add(b, inputs=[x, y]))
    assert storage_of(graph)[y.name] != storage_of(graph)[x.name]


def test_an_output_is_not_written_over() -> None:
    b = GraphBuilder(0)
    x = conv_2d(b, x=b.input((1, 4, 4, 2)), outputs=2)
    y = relu(b, x=x, activation=Activation.RELU6)
    assert storage_of(b.graph(x, y))[y.name] != storage_of(b.graph(x, y))[x.name]


def test_a_layer_that_reads_neighbours_is_not_in_place() -> None:
    b = GraphBuilder(0)
    x = b.input((1, 4, 4, 2))
    y = conv_2d(b, x=x, outputs=2)
    assert storage_of(b.graph(y))[y.name] != storage_of(b.graph(y))[x.name]


def test_a_reshape_is_a_view_unless_it_joins_two_buffers_of_the_caller() -> None:
    b = GraphBuilder(0)
    x = b.input((1, 4, 3))
    flat = reshape(b, x=x, to=(1, 12))
    dense = fully_connected(b, x=flat, outputs=12)
    shown = reshape(b, x=dense, to=(3, 4))
    graph = b.graph(shown, reshape(b, x=x, to=(4, 3)))
    storage = portable_storage(graph)
    assert storage.view_of == {flat.name: x.name, shown.name: dense.name}
    assert storage.buffer_of[flat.name] == x.name


def test_a_view_keeps_the_original_alive() -> None:
    b = GraphBuilder(0)
    x = conv_2d(b, x=b.input((1, 4, 3, 1)), outputs=1)
    flat = b.node(Reshape((1, 12)), [x], x.quantization)
    y = relu(b, x=x, activation=Activation.RELU)
    z = fully_connected(b, x=reshape(b, x=y, to=(1, 12)), outputs=12)
    storage = portable_storage(b.graph(add(b, inputs=[z, flat])))
    assert storage.buffer_of[y.name] != storage.buffer_of[x.name]


def test_a_chain_by_hand() -> None:
    b = GraphBuilder(0)
    x = b.input((1, 100))
    for outputs in (40, 60, 8):
        x = fully_connected(b, x=x, outputs=outputs)
    plan = plan_memory(b.graph(softmax(b, x=x)))
    # 100 + 40 at the first layer, 40 + 60 at the second, 60 + 8 at the third; softmax is in place.
    assert plan.arena_bytes == plan.lower_bound_bytes == 140


def test_scratch_is_only_where_a_patch_is_gathered() -> None:
    b = GraphBuilder(0)
    x = b.input((1, 8, 8, 4))
    gathered: list[dict[str, Any]] = [
        {"padding": "same"},
        {"padding": "valid", "groups": 2},
        {"padding": "valid", "dilations": (1, 2)},
    ]
    plain: list[dict[str, Any]] = [
        {"padding": "valid"},
        {"padding": "valid", "dilations": (2, 1)},
        {"padding": "valid", "kernel": (3, 1), "dilations": (1, 2)},
        {"padding": "same", "kernel": (1, 1)},
    ]
    outputs = [conv_2d(b, x=x, outputs=4, **given) for given in (*gathered, *plain)]
    graph = b.graph(*outputs)
    storage = portable_storage(graph)
    assert list(storage.scratch_of) == [n.name for n in graph.nodes[: len(gathered)]]
    sizes = [b.bytes for b in storage.buffers if not b.members]
    assert sizes == [3 * 3 * 4, 3 * 3 * 2, 3 * 3 * 4]
