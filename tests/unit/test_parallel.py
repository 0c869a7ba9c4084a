"""Independent work on all cores: the results of one core, in order, and nothing left changed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import graphs
import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from tinydeploy import parallel
from tinydeploy.engine import run
from tinydeploy.parallel import in_order


@pytest.fixture(autouse=True)
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine has."""
    monkeypatch.setattr(parallel, "_cores", lambda: 4)


@pytest.fixture
def blas_of_two_threads() -> Iterator[None]:
    if not _blas_threads():
        pytest.skip("numpy's BLAS here is none that threadpoolctl knows")
    # Another test may have loaded a library since they were looked for.
    parallel._libraries.cache_clear()
    with threadpool_limits(2, "blas"):
        yield


def _blas_threads() -> set[int]:
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def test_results_come_in_the_order_of_the_items_whichever_is_done_first() -> None:
    def work(item: int) -> int:
        time.sleep(0.02 if item % 4 == 0 else 0.0)
        return item * item

    assert list(in_order(work, range(20))) == [i * i for i in range(20)]


def test_as_many_run_at_once_as_there_are_cores() -> None:
    # Each waits for three others: fewer threads would break the barrier.
    barrier = threading.Barrier(4, timeout=30)
    assert len(list(in_order(lambda _: barrier.wait(), range(8)))) == 8


def test_no_items_and_one_item() -> None:
    assert list(in_order(str, [])) == []
    assert list(in_order(str, [7])) == ["7"]


def test_what_waits_for_its_turn_is_bounded() -> None:
    begun: list[int] = []
    results = in_order(begun.append, range(1000))
    next(results)
    assert len(begun) <= 5
    results.close()


def test_an_error_comes_when_its_turn_does() -> None:
    results = in_order(lambda item: 1 // (3 - item), range(9))
    assert [next(results) for _ in range(3)] == [0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


@pytest.mark.usefixtures("blas_of_two_threads")
def test_blas_has_one_thread_meanwhile_and_its_own_number_afterwards() -> None:
    assert list(in_order(lambda _: _blas_threads(), range(6))) == [{1}] * 6
    assert _blas_threads() == {2}


@pytest.mark.usefixtures("blas_of_two_threads")
def test_blas_is_restored_when_two_runs_overlap_and_the_first_ends_first() -> None:
    first, second = in_order(str, range(3)), in_order(str, range(3))
    next(first), next(second)
    first.close()
    assert _blas_threads() == {1}
    second.close()
    assert _blas_threads() == {2}


@pytest.mark.usefixtures("blas_of_two_threads")
def test_blas_is_restored_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError):
        list(in_order(lambda item: 1 // item, range(3)))
    assert _blas_threads() == {2}


def test_float_sums_are_the_same_bits_whatever_blas_could_use() -> None:
    # Of a product of these sizes OpenBLAS gives other bits in two threads than in one.
    graph = graphs.single_op_graph("FULLY_CONNECTED", is_float=True, shape=(1, 777), outputs=55)
    inputs = graphs.random_inputs(graph, 33)
    results = []
    for threads in (1, 2, 4):
        with threadpool_limits(threads, "blas"):
            results.append(run(graph, inputs)[0])
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


@pytest.mark.parametrize("cores", [1, 2, 7])
def test_float_outputs_are_the_same_bits_on_any_number_of_cores(
    cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 32 samples are a group here.
    graph = graphs.single_op_graph("CONV_2D", is_float=True, shape=(1, 32, 32, 8), outputs=8)
    inputs = graphs.random_inputs(graph, 200)
    (four,) = run(graph, inputs)
    monkeypatch.setattr(parallel, "_cores", lambda: cores)
    (others,) = run(graph, inputs)
    np.testing.assert_array_equal(four, others)
