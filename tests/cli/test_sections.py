"""The help of a command with many options has headings."""

from __future__ import annotations

import re

import click
from click.testing import CliRunner

from tinydeploy.cli.compress import SECTIONS, compress_command


def test_every_option_of_compress_stands_under_a_heading() -> None:
    text = CliRunner().invoke(compress_command, ["--help"]).output
    parts = re.split(r"(?m)^(\S.*):$", text)
    headings, bodies = parts[1::2], parts[2::2]
    assert headings == list(SECTIONS.values())
    names = [set(re.findall(r"(?m)^  .*?(--[a-z-]+)", body)) for body in bodies]
    listed = dict(zip(headings, names, strict=True))
    assert "--bits" in listed["Quantization"]
    assert "--protect-residual" in listed["Pruning"]
    assert "--optimizer" in listed["Training"]
    assert "--qat-signs" in listed["Quantization-aware training"]
    options = {max(p.opts, key=len) for p in compress_command.params if isinstance(p, click.Option)}
    assert options <= set().union(*names)
