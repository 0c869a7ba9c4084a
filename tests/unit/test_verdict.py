"""Whether a model fits: what is compared with what, and how the answer reads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tinydeploy.emulate.cycles.model import Cycles
from tinydeploy.errors import DeployError
from tinydeploy.latency import Latency
from tinydeploy.measure import Measurement, Sizes
from tinydeploy.targets import load_target
from tinydeploy.timing import Validation
from tinydeploy.verdict import Limits, Need, judge, require_answerable

M4 = load_target("nucleo-l4r5zi")
CORE = load_target("cortex-m4")


def measured(flash: int, ram: int, ms: float | None, error: float | None = None) -> Measurement:
    """A measurement of which only sizes and latency are looked at."""
    validation = None if error is None else Validation(8, error / 2, error, "published results")
    parts = None if ms is None else Cycles(1)
    latency = Latency(parts, {}, ms, validation, () if ms is not None else ("why there is none",))
    sizes = Sizes(flash - 100, 100, ram - 50, ram - 50)
    fields = dict.fromkeys(Measurement.__dataclass_fields__)
    return Measurement(**fields | {"latency": latency, "sizes": sizes, "stack_bytes": 50})  # type: ignore[arg-type]


def test_a_board_is_its_own_limit() -> None:
    found = judge(measured(1000, 500, 3.0), M4, Limits())
    assert found.fits is True
    assert found.why == "flash: 1,000 of 2,097,152 B; RAM: 500 of 655,360 B"


def test_what_is_over_is_named_with_all_its_figures() -> None:
    found = judge(measured(3_000_000, 500, 3.0), M4, Limits())
    assert found.fits is False
    assert found.why == "flash: 3,000,000 B needed, 2,097,152 B there, 902,848 B over"
    assert [need.resource for need in found.over] == ["flash"]


def test_a_limit_of_the_user_binds_where_it_is_smaller_than_the_board() -> None:
    assert judge(measured(1000, 500, 3.0), M4, Limits(ram=499)).fits is False
    assert judge(measured(1000, 500, 3.0), M4, Limits(ram=500)).fits is True
    assert judge(measured(3_000_000, 500, 3.0), M4, Limits(flash=9_000_000)).fits is False


def test_a_core_answers_only_what_it_is_asked() -> None:
    assert judge(measured(1000, 500, None), CORE, Limits()).fits is None
    found = judge(measured(1000, 500, None), CORE, Limits(ram=400))
    assert (found.fits, len(found.needs)) == (False, 1)


def test_a_latency_at_its_limit_fits_and_the_band_is_said() -> None:
    found = judge(measured(1000, 500, 50.0, 8.0), M4, Limits(latency_ms=51.0))
    assert found.fits is True
    assert found.why.endswith("latency: 50.0 ms of 51.0 ms, and its band reaches to 54.0 ms")
    assert judge(measured(1000, 500, 50.0, 8.0), M4, Limits(latency_ms=60.0)).why.endswith("of 60.0 ms")
    over = judge(measured(1000, 500, 52.5, 8.0), M4, Limits(latency_ms=50.0))
    assert over.why == "latency: 52.5 ms needed, 50.0 ms there, 2.50 ms over"


def test_a_latency_that_is_not_known_is_never_within_a_limit() -> None:
    found = judge(measured(1000, 500, None), M4, Limits(latency_ms=50.0))
    assert found.fits is False
    assert found.why == "latency: not known (why there is none)"


@pytest.mark.parametrize(
    ("target", "limits", "words"),
    [
        ("cortex-m4", Limits(latency_ms=1.0), ("--max-latency-ms", "no clock")),
        ("nucleo-h743zi", Limits(latency_ms=1.0), ("--max-latency-ms", "timings")),
        ("host", Limits(ram=1), ("--max-ram", "host")),
        ("host", Limits(flash=1), ("--max-flash", "host")),
    ],
)
def test_a_question_without_an_answer_is_refused_before_anything_is_built(
    target: str, limits: Limits, words: tuple[str, ...], tmp_path: Path
) -> None:
    where = load_target(target)
    if target == "nucleo-h743zi":
        where = replace(where, core=replace(where.core, timing=None))
    with pytest.raises(DeployError) as caught:
        require_answerable(where, limits)
    assert all(word in str(caught.value) for word in words)


def test_needs_as_json() -> None:
    assert Need("RAM", 110, 100).to_json() == {"resource": "ram", "needed": 110, "limit": 100, "over": 10}
    assert Need("latency", None, 1.0).to_json()["over"] is None
