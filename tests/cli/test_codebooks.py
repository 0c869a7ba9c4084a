"""`--codebooks` on the command line: what is printed, what stands in the JSON, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from coded_cases import network

from tinydeploy.backends.onnx import write_onnx
from tinydeploy.cli.main import cli

DIGITS = Path(__file__).resolve().parent.parent.parent / "fixtures" / "digits" / "digits_int8.tflite"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "skewed.onnx"
    path.write_bytes(write_onnx(network(4)))
    return path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in arguments])


def words(result: Result) -> str:
    return " ".join(result.stdout.split())


def test_export_says_what_coding_saves_and_takes(model: Path, tmp_path: Path) -> None:
    given = ("export-c", model, "--target", "cortex-m4", "--optimize", "balanced", "-o", tmp_path / "c")
    plain = run(*given)
    assert plain.exit_code == 0
    assert "codebooks" not in plain.output
    coded = run(*given, "--codebooks", "auto")
    assert coded.exit_code == 0
    coding = json.loads((tmp_path / "c" / "manifest.json").read_text())["huffman"]
    assert f"{coding['layers']} layers Huffman-coded" in words(coded)
    assert f"{coding['flash_saved_bytes_estimated']:,} B saved; {coding['ram_bytes']:,} B of RAM" in words(
        coded
    )


@pytest.mark.slow
def test_verify_and_profile_have_the_start_up_apart(model: Path) -> None:
    pytest.importorskip("unicorn", reason="the extra emulate is not installed")
    given = (model, "--target", "cortex-m4", "--optimize", "balanced", "--codebooks", "auto")
    done = run("verify", *given, "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["mismatches"] == 0
    assert report["init_instructions"] > 0
    assert report["huffman"]["flash_saved_bytes_estimated"] > 0
    plain = json.loads(
        run("verify", model, "--target", "cortex-m4", "--optimize", "balanced", "--json").stdout
    )
    assert plain["init_instructions"] is None and plain["huffman"] is None
    assert report["flash_bytes"] < plain["flash_bytes"]
    assert report["ram_bytes"] > plain["ram_bytes"]
    (target,) = json.loads(run("profile", *given, "--json").stdout)["targets"]
    assert target["init_instructions"] == report["init_instructions"]
    assert target["flash_bytes"] == report["flash_bytes"]
    text = words(run("profile", *given))
    assert f"skewed_init takes {report['init_instructions']:,} instructions, once at start-up" in text


@pytest.mark.parametrize("command", ["verify", "profile"])
def test_a_model_without_indices_ends_in_two(command: str) -> None:
    done = run(command, DIGITS, "--target", "cortex-m4", "--codebooks", "huffman")
    assert done.exit_code == 2
    assert "--codebooks huffman: no layer's kernel reads codebook indices" in done.stderr
    assert "Traceback" not in done.output


def test_another_word_ends_in_two(model: Path, tmp_path: Path) -> None:
    done = run("export-c", model, "--target", "cortex-m4", "-o", tmp_path, "--codebooks", "gzip")
    assert done.exit_code == 2
    assert "'gzip'" in done.stderr
