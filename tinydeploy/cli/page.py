"""The limits of `tinydeploy profile`, and its page of HTML."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import click

from tinydeploy.cli.options import warn

if TYPE_CHECKING:
    from tinydeploy.model import Model
    from tinydeploy.profiling import Profile

# ruff: noqa: PLC0415  (heavy imports wait until the command runs)


class Allowed(TypedDict):
    """What a model may take on every target; None for no limit."""

    max_flash: int | None
    max_ram: int | None
    max_latency_ms: float | None


@dataclass(frozen=True)
class PageOptions:
    """Where the page goes, and the report of `compress` that it shows."""

    html: str | None
    compress_report: str | None

    def write(self, result: Profile, model: Model) -> None:
        """Writes the page, where one is asked for.

        Raises:
            DeployError: the report of `compress` is damaged or of another model, or nothing can be written.
        """
        if self.html is None:
            return
        from tinydeploy.report.page import html_report, write_page
        from tinydeploy.report.page.accuracy import find_accuracy, read_accuracy

        if self.compress_report is None:
            accuracy, note = find_accuracy(model.path, result.macs, result.params)
            warn([note] if note else [], "note")
        else:
            accuracy = read_accuracy(Path(self.compress_report), result.macs, result.params)
        write_page(html_report(result, sha256=model.sha256, accuracy=accuracy), Path(self.html))


def page_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --html and --compress-report, as one argument `page`."""

    @click.option(
        "--html", type=click.Path(dir_okay=False), help="Also write the report as one page of HTML."
    )
    @click.option(
        "--compress-report",
        type=click.Path(dir_okay=False),
        help="The report.json of `compress`, for the page; by default the one beside MODEL.",
    )
    @wraps(command)
    def wrapped(*args: Any, html: str | None, compress_report: str | None, **rest: Any) -> Any:
        return command(*args, page=PageOptions(html, compress_report), **rest)

    return wrapped


def limit_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --max-flash, --max-ram and --max-latency-ms, as one argument `allowed`."""

    @click.option("--max-flash", type=click.IntRange(min=1), help="Bytes; more is exit 1, also on a core.")
    @click.option("--max-ram", type=click.IntRange(min=1), help="Bytes; more is exit 1, also on a core.")
    @click.option(
        "--max-latency-ms",
        type=click.FloatRange(min=0, min_open=True),
        help="Milliseconds of one inference; more is exit 1. For boards whose cycles are modelled.",
    )
    @wraps(command)
    def wrapped(
        *args: Any, max_flash: int | None, max_ram: int | None, max_latency_ms: float | None, **rest: Any
    ) -> Any:
        allowed = Allowed(max_flash=max_flash, max_ram=max_ram, max_latency_ms=max_latency_ms)
        return command(*args, allowed=allowed, **rest)

    return wrapped
