"""A progress bar on standard error for whatever takes longer than two seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tinydeploy.measure import Progress

_QUIET_SECONDS = 2.0


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Gives a Progress that stays silent for two seconds, and for good where nobody watches."""
    if not sys.stderr.isatty():
        yield lambda what, done, total: None
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
