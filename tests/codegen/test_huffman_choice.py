"""--codebooks: nothing changes by itself, and auto codes what saves flash in the linked ELF, and no more."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from coded_cases import EVEN, SKEWED, indexed, network
from graphs import single_op_graph
from test_kernels_forms import needs_emulator

from tinydeploy import api
from tinydeploy.advice import Trial, advise
from tinydeploy.backends.c import project
from tinydeploy.backends.c.coded import AUTO, HUFFMAN, PACKED
from tinydeploy.backends.c.project import ExportOptions, Project, make_project
from tinydeploy.data import random_samples
from tinydeploy.errors import DeployError
from tinydeploy.export import DoesNotFitError
from tinydeploy.ir.graph import Graph
from tinydeploy.jobs import first_sample
from tinydeploy.measure import Job, Measurement, measure
from tinydeploy.model import Model, graph_sha256
from tinydeploy.plan.coding import STACK_BYTES
from tinydeploy.targets import load_target
from tinydeploy.verdict import Limits

DIGITS = Path(__file__).resolve().parent.parent.parent / "fixtures" / "digits" / "digits_int8.tflite"


CODED = [
    ("cortex-m4", "flash"),
    pytest.param("cortex-m4", "balanced", marks=pytest.mark.slow),
    pytest.param("cortex-m0plus", "flash", marks=pytest.mark.slow),
]
"""Where `auto` codes; with `balanced` on the Cortex-M0+ it finds nothing in this network that pays."""


@cache
def skewed() -> Graph:
    return network(4, SKEWED)


@cache
def even() -> Graph:
    return network(4, EVEN)


def made(graph: Graph, codebooks: str, ram: int | None = None, optimize: str = "balanced") -> Project:
    options = ExportOptions("net", "cortex-m4", optimize, "0" * 64, dsp=True)
    return make_project(graph, replace(options, codebooks=codebooks, ram=ram))


def as_model(graph: Graph) -> Model:
    return Model("net.onnx", graph, graph_sha256(graph))


def test_indices_are_packed_unless_somebody_asks() -> None:
    plain = make_project(skewed(), ExportOptions("net", "cortex-m4", "balanced", "0" * 64, dsp=True))
    assert plain.model.coding is None
    assert plain.files == made(skewed(), PACKED).files
    assert not any("huffman" in text or "net_init" in text for text in plain.files.values())
    assert "td_kernels_huffman.h" not in plain.files


def test_auto_codes_nothing_where_indices_are_used_evenly() -> None:
    found, plain = made(even(), AUTO), made(even(), PACKED)
    assert found.model.coding is None
    assert json.loads(found.files["manifest.json"])["huffman"] is None
    for name in ("net.c", "net.h", "net_weights.c"):
        code = [text.split("*/", 1)[1] for text in (found.files[name], plain.files[name])]
        assert code[0] == code[1]


def test_auto_codes_what_pays_and_leaves_a_small_layer_packed() -> None:
    found = made(skewed(), AUTO)
    coding = found.model.coding
    assert coding is not None and coding.saved_bytes > 0
    each = {layer.node.op.kind: layer.decoded_bytes for layer in found.model.layers}
    assert each["CONV_2D"] > 0
    manifest = json.loads(found.files["manifest.json"])
    assert manifest["codebooks"] == AUTO
    assert manifest["huffman"] == coding.to_json()
    assert sum(layer.get("decoded_bytes", 0) for layer in manifest["layers"]) + 4 == coding.ram_bytes
    assert "void net_init(void);" in found.files["net.h"]
    every = made(skewed(), HUFFMAN).model.coding
    assert every is not None and every.saved_bytes <= coding.saved_bytes


def test_auto_keeps_the_ram_that_is_there() -> None:
    whole = made(skewed(), AUTO)
    assert whole.model.coding is not None
    need = whole.plan.arena_bytes + STACK_BYTES + whole.model.decoded_bytes
    assert made(skewed(), AUTO, need).model.coding == whole.model.coding
    less = made(skewed(), AUTO, need - 1).model
    assert less.coding is not None
    assert 0 < less.decoded_bytes < whole.model.decoded_bytes
    assert made(skewed(), AUTO, whole.plan.arena_bytes + STACK_BYTES).model.coding is None
    assert made(skewed(), AUTO, 1).model.coding is None


@needs_emulator
@pytest.mark.parametrize(("core", "optimize"), CODED)
def test_what_auto_says_is_in_the_elf(core: str, optimize: str) -> None:
    """What was said is saved, or a little more; the RAM is exact; an inference takes as long as before."""
    packed, coded = (linked(skewed(), core, optimize, how) for how in (PACKED, AUTO))
    said = coded.project.model.coding
    assert said is not None and packed.sizes is not None and coded.sizes is not None
    saved = packed.sizes.flash - coded.sizes.flash
    assert said.saved_bytes <= saved <= said.saved_bytes + 200
    assert packed.sizes.flash_weights - coded.sizes.flash_weights == said.packed_bytes - said.coded_bytes
    assert 0 <= said.ram_bytes - (coded.sizes.static_ram - packed.sizes.static_ram) <= 3
    assert coded.instructions == pytest.approx(packed.instructions, rel=0.01)
    assert all(np.array_equal(a, b) for a, b in zip(packed.outputs, coded.outputs, strict=True))


def linked(graph: Graph, core: str, optimize: str, codebooks: str) -> Measurement:
    found = load_target(core).core
    options = ExportOptions("net", core, optimize, "0" * 64, found.dsp, narrow=found.narrow)
    job = Job(graph, replace(options, codebooks=codebooks), found)
    return measure(job, first_sample(graph), prove=False)


def test_an_estimate_has_the_ram_and_the_code_of_decoding() -> None:
    wide = indexed(single_op_graph("CONV_2D", 1, shape=(1, 9, 9, 64), outputs=64, kernel=(1, 1)), 4, SKEWED)
    given = {"optimize": "balanced", "estimate": True}
    found = [api.profile(as_model(wide), ["cortex-m0plus"], codebooks=how, **given) for how in (PACKED, AUTO)]
    packed, coded = (p.targets[0].measurement for p in found)
    said = coded.project.model.coding
    assert said is not None and packed.sizes is not None and coded.sizes is not None
    assert packed.sizes.flash - coded.sizes.flash == said.saved_bytes > 0
    assert coded.sizes.static_ram - packed.sizes.static_ram == said.ram_bytes


@pytest.mark.slow
@needs_emulator
def test_measured_kernels_are_chosen_without_coding_and_coded_afterwards(tmp_path: Path) -> None:
    given = {"optimize": "flash", "codebooks": HUFFMAN, "autotune": True}
    done = api.export_c(as_model(network(4, SKEWED, channels=16)), "cortex-m4", tmp_path, **given)
    assert done.project.model.coding is not None


@pytest.mark.slow
@needs_emulator
def test_export_goes_back_to_packed_where_the_ram_does_not_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the stack is deeper than what was left to it, the build shows it, and packed indices follow."""
    monkeypatch.setattr(project, "STACK_BYTES", -(1 << 20))
    need = linked(skewed(), "cortex-m4", "balanced", PACKED).ram_bytes
    assert need is not None
    given = {"optimize": "balanced", "codebooks": AUTO}
    done = api.export_c(as_model(skewed()), "cortex-m4", tmp_path, max_ram=need, **given)
    assert done.project.model.coding is None
    assert done.measurement is not None and done.measurement.ram_bytes == need


@needs_emulator
def test_a_limit_of_flash_is_kept_by_coding(tmp_path: Path) -> None:
    coded = linked(skewed(), "cortex-m4", "flash", AUTO).sizes
    assert coded is not None
    limits = {"optimize": "flash", "max_flash": coded.flash}
    with pytest.raises(DoesNotFitError, match="flash"):
        api.export_c(as_model(skewed()), "cortex-m4", tmp_path, **limits)
    assert not list(tmp_path.iterdir())
    done = api.export_c(as_model(skewed()), "cortex-m4", tmp_path, codebooks=AUTO, **limits)
    assert done.project.model.coding is not None
    assert (tmp_path / "td_kernels_huffman.h").exists()


def test_a_model_without_indices_has_nothing_to_code(tmp_path: Path) -> None:
    model = api.load_model(DIGITS)
    with pytest.raises(DeployError, match="no layer's kernel reads codebook indices") as found:
        api.export_c(model, "cortex-m4", tmp_path, codebooks=HUFFMAN)
    assert "--scheme codebook:N" in found.value.hint
    assert not list(tmp_path.iterdir())
    assert api.export_c(model, "cortex-m4", tmp_path, codebooks=AUTO).project.model.coding is None


def test_another_word_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DeployError, match="'gzip' is no way to hold codebook indices") as found:
        api.export_c(as_model(single_op_graph("CONV_2D")), "cortex-m4", tmp_path, codebooks="gzip")
    assert found.value.where == "--codebooks"
    assert "packed, huffman, auto" in found.value.hint


@pytest.mark.slow
@needs_emulator
def test_a_profile_over_its_flash_advises_coding() -> None:
    coded = linked(skewed(), "cortex-m4", "flash", AUTO).sizes
    assert coded is not None
    target = load_target("cortex-m4")
    options = ExportOptions("net", "cortex-m4", "flash", "0" * 64, dsp=True)
    trial = Trial(
        Job(skewed(), options, target.core), target, Limits(flash=coded.flash), random_samples(skewed(), 1, 0)
    )
    before = trial.measure()
    (advice,) = [a for a in advise(trial, before, trial.judge(before)) if a.kind == "codebooks"]
    assert advice.fits and advice.command == "--codebooks auto"
    assert f"{coded.flash:,} B" in advice.text
    # Where RAM has no room for what is decoded, there is nothing to advise.
    assert before.ram_bytes is not None
    narrow = replace(trial, limits=replace(trial.limits, ram=before.ram_bytes))
    assert not [a for a in advise(narrow, before, narrow.judge(before)) if a.kind == "codebooks"]
