"""Independent numpy work on all cores, its results in order."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

from threadpoolctl import ThreadpoolController

Item = TypeVar("Item")
Result = TypeVar("Result")

# What waits for its turn holds memory, so more cores than these are left idle.
_MOST_THREADS = 8


def in_order(work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """`work` of every item, in the order of the items, on as many cores as there are, up to eight.

    numpy copies, reduces and multiplies without the interpreter's lock, so threads suffice. BLAS meanwhile
    stays in the thread that calls it: its own threads wait busily between small products, and the rounding
    of a float sum would depend on their number, and so on the machine.

    Args:
        work: free of side effects; `np.errstate` around this call does not reach it.

    Raises:
        whatever `work` raises, when its turn comes.
    """
    threads = min(_cores(), _MOST_THREADS, len(items))
    with _single_threaded_blas():
        if threads < 2:
            yield from map(work, items)
            return
        with ThreadPoolExecutor(threads) as pool:
            waiting: deque[Future[Result]] = deque()
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()


def _cores() -> int:
    """Those that this process may use; not every system tells them apart."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Users:
    """How many want BLAS in one thread now; who comes first sets it, and who goes last restores it."""

    lock = threading.Lock()
    count = 0
    limiter: Any = None


@contextmanager
def _single_threaded_blas() -> Iterator[None]:
    with _Users.lock:
        if _Users.count == 0:
            _Users.limiter = _libraries().limit(limits=1, user_api="blas")
        _Users.count += 1
    try:
        yield
    finally:
        with _Users.lock:
            _Users.count -= 1
            if _Users.count == 0:
                _Users.limiter.restore_original_limits()


@cache
def _libraries() -> ThreadpoolController:
    """Looks once through the libraries of the process, which takes milliseconds."""
    return ThreadpoolController()
