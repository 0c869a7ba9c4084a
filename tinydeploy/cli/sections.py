"""Help whose options stand under headings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click


class SectionedCommand(click.Command):
    """A command with many options.

    Args:
        sections: headings by the name of the parameter that each stands before, in the order of the
            parameters. What comes before the first heading stands under that of click.
    """

    def __init__(self, *args: Any, sections: Mapping[str, str], **given: Any) -> None:
        super().__init__(*args, **given)
        unknown = set(sections) - {p.name for p in self.params}
        assert not unknown, f"no parameters of the command: {sorted(unknown)}"
        self.sections = sections

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        heading, rows = "Options", list[tuple[str, str]]()
        for parameter in self.get_params(ctx):
            if parameter.name in self.sections:
                _write(formatter, heading, rows)
                heading, rows = self.sections[parameter.name], []
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                rows.append(record)
        _write(formatter, heading, rows)


def _write(formatter: click.HelpFormatter, heading: str, rows: list[tuple[str, str]]) -> None:
    if rows:
        with formatter.section(heading):
            formatter.write_dl(rows)
