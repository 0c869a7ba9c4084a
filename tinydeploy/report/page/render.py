"""Fills the page's template, within its size, and writes it whole or not at all."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from importlib import resources
from pathlib import Path

import jinja2

from tinydeploy import __version__
from tinydeploy.errors import DeployError
from tinydeploy.export import write_files
from tinydeploy.latency import milliseconds
from tinydeploy.profiling import Profile
from tinydeploy.report.page.accuracy import Accuracy
from tinydeploy.report.page.graph import ROW, graph_picture
from tinydeploy.report.page.memory import HEIGHT, memory_pictures
from tinydeploy.report.page.view import target_views

MOST_BYTES = 1_000_000
"""A page is smaller than this."""

_MOST_TARGETS = 200
_ROOM = (400, 150, 50, 8)
"""Rows of a table or picture, tried in turn until the page keeps its size."""


def html_report(profile: Profile, *, sha256: str, accuracy: Accuracy | None = None) -> str:
    """The report as one page; equal arguments give equal text.

    Args:
        sha256: of the model file.
        accuracy: before and after, where `compress` made the model.

    Raises:
        DeployError: there are more targets than a page of MOST_BYTES holds.
    """
    # The smallest that can be said of a target takes far more than this share of a page.
    rooms = _ROOM if len(profile.targets) <= _MOST_TARGETS else ()
    template = _environment().get_template("page.html.j2")
    style, script = _part("page.css"), _part("page.js")
    for most in rooms:
        views = target_views(profile, most)
        text = template.render(
            profile=profile,
            name=Path(profile.model).name or profile.model,
            version=__version__,
            sha256=sha256,
            targets=views,
            memory=memory_pictures(profile, most),
            memory_height=HEIGHT,
            graph=graph_picture(profile.targets[0].measurement.project.model, most),
            row_height=ROW,
            accuracy=accuracy,
            compilers=sorted({t.measurement.compiler for t in profile.targets}),
            style=style,
            script=script,
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
        if len(text.encode()) < MOST_BYTES:
            return text
    raise DeployError(
        f"{len(profile.targets)} targets are more than a page of {MOST_BYTES:,} B holds",
        where="--html",
        hint="name fewer targets",
    )


def write_page(text: str, path: Path) -> None:
    """Writes a page, beside its place first, so that a failure leaves no half of one.

    Raises:
        DeployError: the file cannot be written.
    """
    try:
        write_files({path.name: text.encode()}, path.parent)
    except DeployError as error:
        raise DeployError(error.fact, where=str(path), hint="name a file with --html") from None


def _part(name: str) -> str:
    folder = resources.files("tinydeploy.report.page") / "templates"
    return (folder / name).read_text(encoding="utf-8")


def _environment() -> jinja2.Environment:
    """Everything is escaped but what the template itself marks as safe: this package's style and script."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_part),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": lambda n: "–" if n is None else f"{n:,}",
        "ms": milliseconds,
        "percent": _percent,
        "kib": _kib,
        "sentence": _sentence,
    }
    return environment


def _percent(share: float) -> str:
    """Of a fraction: `43.1 %`; what would show as nothing and is something is `< 0.1 %`."""
    if not math.isfinite(share):
        return "–"
    return "< 0.1 %" if 0 < share < 0.0005 else f"{100 * share:,.1f} %"


def _sentence(text: str) -> str:
    """With a capital letter and a full stop, and no line break between a number and its unit."""
    return re.sub(r"(?<=\d) (?=(%|B|ms|KiB)\b|%)", "\N{NO-BREAK SPACE}", f"{text[:1].upper()}{text[1:]}.")


def _kib(size: float) -> str:
    """`640 KiB` where that is exact, else bytes."""
    return f"{size / 1024:,.0f} KiB" if size % 1024 == 0 and size >= 1024 else f"{size:,.0f} B"
