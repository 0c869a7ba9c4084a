"""Progress where no terminal watches: a line in the log now and then, none for quick commands."""

from __future__ import annotations

import pytest

from tinydeploy.cli.progress import log_lines


class Clock:
    """Time that passes when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_quick_command_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    report = log_lines(clock)
    for step in range(10):
        clock.now += 1.0
        report("training", step, 10)
    assert capsys.readouterr().err == ""


def test_a_long_one_writes_every_half_minute_and_says_what_is_left(
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = Clock()
    report = log_lines(clock)
    report("training: epoch 1 of 2, loss 0.9", 0, 120)
    for step in range(1, 71):
        clock.now += 1.0
        report(f"training: epoch 1 of 2, loss 0.{step}", step, 120)
    assert capsys.readouterr().err.splitlines() == [
        "training: epoch 1 of 2, loss 0.30 (30 of 120, 2 min left)",
        "training: epoch 1 of 2, loss 0.60 (60 of 120, 60 s left)",
    ]


def test_the_time_left_is_that_of_the_stage(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    report = log_lines(clock)
    report("scan: layer 1", 0, 10)
    clock.now += 25.0
    report("training: epoch 1", 0, 100)
    clock.now += 10.0
    report("training: epoch 1", 10, 100)
    assert capsys.readouterr().err == "training: epoch 1 (10 of 100, 2 min left)\n"


@pytest.mark.parametrize(("second", "left"), [(100, "80 s"), (400, "6 min")])
def test_a_second_training_starts_its_time_anew(
    second: int, left: str, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    report = log_lines(clock)
    for step in range(1, 101):
        clock.now += 1.0
        report("training: epoch 1", step, 100)
    capsys.readouterr()
    report("training: epoch 1", 0, second)
    for step in range(1, 41):
        clock.now += 1.0
        report("training: epoch 1", step, second)
    assert capsys.readouterr().err == f"training: epoch 1 (20 of {second}, {left} left)\n"


def test_a_stage_that_begins_says_no_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    report = log_lines(clock)
    report("scan: layer 1", 0, 10)
    clock.now += 60.0
    report("training: epoch 1", 1, 100)
    assert capsys.readouterr().err == ""
    clock.now += 3.0
    report("training: epoch 1", 2, 100)
    assert capsys.readouterr().err.startswith("training: epoch 1 (2 of 100, ")
