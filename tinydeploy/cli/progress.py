"""Progress on standard error for whatever takes longer than two seconds: a bar, or lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tinydeploy.measure import Progress

_QUIET_SECONDS = 2.0
_LINE_SECONDS = 30.0


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Gives a Progress, silent for two seconds; without a terminal it is a line every half minute."""
    if not sys.stderr.isatty():
        yield log_lines(time.monotonic)
        return
    # rich takes a tenth of a second to import, which a quick command should not pay.
    from rich import progress as bars  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415

    bar = bars.Progress(
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    task = bar.add_task("", total=None)
    start = time.monotonic()

    def report(what: str, done: int, total: int) -> None:
        bar.update(task, description=what, completed=done, total=total)
        if not bar.live.is_started and time.monotonic() - start > _QUIET_SECONDS:
            bar.start()

    try:
        yield report
    finally:
        bar.stop()


def log_lines(clock: Callable[[], float]) -> Progress:
    """A Progress that writes what is being done and the time left, at most every half minute."""
    started = told = clock()
    stage, stage_started, before = ("", 0), started, 0

    def report(what: str, done: int, total: int) -> None:
        nonlocal told, stage, stage_started, before
        now = clock()
        # The words behind the colon change with each step; one training may follow another of the same name.
        if (what.partition(":")[0], total) != stage or done < before:
            stage, stage_started = (what.partition(":")[0], total), now
        before = done
        # Of a stage that begins nobody knows how long it takes.
        if now - told < _LINE_SECONDS or now - stage_started < _QUIET_SECONDS:
            return
        told = now
        left = (now - stage_started) / max(done, 1) * (total - done)
        print(f"{what} ({done:,} of {total:,}, {_minutes(left)} left)", file=sys.stderr, flush=True)

    return report


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
