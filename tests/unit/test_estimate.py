"""Estimates: features by hand, the data file whole, errors that hold, and what cannot be estimated."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from graphs import GraphBuilder, conv_2d, every_op_graph
from hypothesis import given, settings
from hypothesis import strategies as st
from sweeps import thinned

from tinydeploy import api
from tinydeploy.backends.c.project import ExportOptions, lower_project
from tinydeploy.errors import DeployError
from tinydeploy.estimate.costs import FILE, core_costs, cost, flash_key
from tinydeploy.estimate.features import FEATURES, layer_features
from tinydeploy.estimate.model import estimate
from tinydeploy.ir.graph import Graph
from tinydeploy.latency import Estimated, Latency
from tinydeploy.measure import Job
from tinydeploy.ops import Padding
from tinydeploy.targets import list_targets, load_target

ROOT = Path(__file__).resolve().parent.parent.parent
MODEL = ROOT / "fixtures" / "digits" / "digits_int8.tflite"
TIMED = [t.name for t in list_targets() if t.core.timing is not None]

sys.path.insert(0, str(ROOT / "benchmarks"))


def job_of(graph: Graph, target: str, optimize: str = "latency") -> Job:
    found = load_target(target)
    options = ExportOptions("model", target, optimize, "", found.core.dsp, narrow=found.core.narrow)
    return Job(graph, options, found.core, None, found.board)


def features_of(graph: Graph, target: str) -> dict[str, float]:
    model = lower_project(graph, job_of(graph, target).options)
    return dict(layer_features(model.graph, model.layers[0]))


def test_features_of_a_convolution_by_hand() -> None:
    b = GraphBuilder(0)
    y = conv_2d(b, shape=(1, 6, 5, 4), outputs=8, kernel=(3, 3), padding=Padding(1, 1, 1, 1))
    found = features_of(b.graph(y), "host")
    assert found["call"] == 1
    assert found["pixels"] == 30
    assert found["outputs"] == 240
    assert found["macs"] == 30 * 8 * 36
    assert found["plain_macs"] == 0
    assert found["reads"] == 30 * 36
    assert found["taps"] == 30 * 9
    assert found["rows"] == 240 * 3
    # Of the 6 x 5 windows 4 x 3 lie inside.
    assert found["border"] == pytest.approx(240 * 9 * (1 - 12 / 30))
    assert found["inputs"] == 120
    assert set(found) == set(FEATURES)


def test_a_cost_is_a_sum() -> None:
    assert cost({"call": 10.0, "macs": 1.5}, {"call": 1, "macs": 100, "rows": 7}) == 160


def test_the_data_file_is_whole() -> None:
    data = json.loads((resources.files("tinydeploy.estimate") / FILE).read_text())
    for core in data["cores"].values():
        for name, kernel in core["kernels"].items():
            for part in ("issue", "branches", "instructions"):
                assert set(kernel[part]) <= set(FEATURES) or name.startswith(("td_dsp_", "td_trio_"))
                assert all(factor > 0 for factor in kernel[part].values())
    for board in data["flash"].values():
        assert set(board["held_out"]) == {"networks", "mean_error_pct", "worst_error_pct"}


@pytest.mark.parametrize("target", thinned(TIMED, 3))
def test_every_kernel_of_every_timed_target_has_a_cost(target: str) -> None:
    for optimize in ("latency", "ram"):
        found = estimate(job_of(every_op_graph(), target, optimize))
        assert found.latency.cycles
        assert found.latency.error_pct
        assert found.source == "estimated"


@pytest.mark.parametrize(
    "target", thinned(["nucleo-l4r5zi", "cortex-m3", "raspberry-pi-pico", "nrf5340-dk"], 2)
)
def test_the_error_that_is_stated_holds_for_a_trained_model(target: str) -> None:
    model = api.load_model(str(MODEL))
    guess, truth = (api.profile(model, [target], estimate=e).targets[0].measurement for e in (True, False))
    assert guess.latency.cycles is not None
    assert truth.latency.cycles is not None
    assert guess.latency.estimated is not None
    error = abs(guess.latency.cycles / truth.latency.cycles - 1)
    assert 100 * error <= guess.latency.estimated.worst_error_pct
    assert guess.sizes is not None
    assert truth.sizes is not None
    assert guess.sizes.arena == truth.sizes.arena
    assert guess.sizes.flash_weights == truth.sizes.flash_weights
    assert guess.sizes.flash == pytest.approx(truth.sizes.flash, rel=0.15)


def test_the_errors_of_estimate_and_model_go_together() -> None:
    known = load_target("nucleo-l4r5zi").validation
    assert known is not None
    count = Latency(None, {}, None, known, (), Estimated(10, 5.0))
    assert count.error_pct is None
    guess = estimate(job_of(every_op_graph(), "nucleo-l4r5zi")).latency
    both = replace(guess, validation=replace(known, worst_error_pct=10.0), estimated=Estimated(10, 20.0))
    assert both.error_pct == 32.0
    assert both.band == "±32 % (estimated; the model of the board is validated)"
    assert replace(both, validation=None).band == "±20 % (estimated; the model of the board is unvalidated)"


def test_what_was_not_fitted_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DeployError, match="--optimize flash"):
        estimate(job_of(every_op_graph(), "cortex-m4", "flash"))
    with pytest.raises(DeployError, match="no cost functions were fitted for the core host"):
        estimate(job_of(every_op_graph(), "host"))
    text = (ROOT / "targets" / "boards" / "nucleo-l4r5zi.toml").read_text(encoding="utf-8")
    board = tmp_path / "other.toml"
    board.write_text(text.replace('"nucleo-l4r5zi"', '"other"').replace("line_bytes = 8", "line_bytes = 64"))
    with pytest.raises(DeployError, match="no cost functions were fitted for a flash like this board's"):
        estimate(job_of(every_op_graph(), str(board)))
    with pytest.raises(DeployError, match="for the kernel td_other"):
        core_costs("cortex-m4", None).kernel("td_other")


def test_every_shipped_board_with_a_flash_was_fitted() -> None:
    data = json.loads((resources.files("tinydeploy.estimate") / FILE).read_text())
    for target in list_targets():
        if target.board is not None and target.board.flash is not None and target.core.timing is not None:
            assert flash_key(target.core.name, target.board.flash) in data["flash"], target.name


@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(6, 20))
@settings(deadline=None)
def test_the_fit_has_no_negative_factor_and_no_better_neighbour(seed: int, columns: int, rows: int) -> None:
    from fit_estimate import nonnegative

    rng = np.random.default_rng(seed)
    a, y = rng.normal(size=(rows, columns)), rng.normal(size=rows)
    x = nonnegative(a, y)
    gradient = a.T @ (y - a @ x)
    assert (x >= 0).all()
    # Karush, Kuhn and Tucker: no factor wants to grow, and those above 0 do not want to shrink.
    assert (gradient <= 1e-6).all()
    assert np.abs(gradient[x > 0]).max(initial=0) <= 1e-6
