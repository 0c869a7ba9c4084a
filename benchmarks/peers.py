"""What the reference models cost here and elsewhere, whole and layer by layer.

    python benchmarks/peers.py DATA [--layers] [--optimize latency]

DATA is the folder with models/, peers.json and mlperf_tiny_published.csv. Ours are measured now, by `profile`
on nucleo-l4r5zi and cortex-m0plus; the peer is TensorFlow Lite Micro with CMSIS-NN and its default flags, as
counted by the publisher of peers.json; RAM is arena, other static data and stack. Last come our modelled
milliseconds beside the best published result on the same board.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

from tinydeploy import api

MODELS = ("kws", "ic", "vww", "ad", "sww")
TARGETS = {"cortex-m4": "nucleo-l4r5zi", "cortex-m0plus": "cortex-m0plus"}
BOARD = "L4R5ZI"


def peer(results: list[dict[str, Any]], model: str, core: str, opt: str = "def") -> dict[str, Any] | None:
    """TensorFlow Lite Micro with CMSIS-NN; without that choice of flags, as fast as it was counted at all."""
    found = [
        r
        for r in results
        if (r["model"], r["core"], r.get("kernels")) == (model, core, "cmsis-nn")
        and r["peer"] == "tflite-micro"
    ]
    chosen = [r for r in found if r["opt"] == opt] or sorted(found, key=lambda r: r["instructions"])
    return chosen[0] if chosen else None


def peer_ram(r: dict[str, Any]) -> int:
    """Bytes of arena, other static data and stack."""
    return int(r["arena_bytes"] + r["static_ram_bytes"] + r["stack_bytes"])


def peer_flash(r: dict[str, Any]) -> int:
    """Bytes of code and model."""
    return int(r["flash_code_bytes"] + r["flash_model_bytes"])


def published(path: Path, model: str) -> tuple[float, str] | None:
    """The least latency in ms on the board, and whose it is."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = [r for r in csv.DictReader(file) if BOARD in r["board"].upper() and r["model"] == model]
    times = [(float(r["latency_ms"]), f"{r['organisation']} {r['round']}") for r in rows if r["latency_ms"]]
    return min(times) if times else None


def ratio(ours: float | None, theirs: float | None) -> str:
    """Ours over theirs."""
    return "-" if not ours or not theirs else f"{ours / theirs:.2f}"


def figure(value: int | None) -> str:
    """A number, or a dash where nobody has it."""
    return "-" if value is None else f"{value:,}"


def whole(model: str, core: str, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """One line for a model."""
    cycles = theirs.get("modelled_cycles_nucleo_l4r5zi") if core == "cortex-m4" else None
    pairs = (
        (ours["instructions"], theirs["instructions"]),
        (ours["cycles"], cycles),
        (ours["ram_bytes"], peer_ram(theirs)),
        (ours["flash_bytes"], peer_flash(theirs)),
    )
    shown = (f"{figure(a):>11} {figure(b):>11} {ratio(a, b):>5}" for a, b in pairs)
    print(f"{model:4} {core:14}" + " |".join(shown))


def layer_lines(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    """The layers that both have, in order, with the MACs before channels were removed."""
    both = [
        [e for e in side if e["op"] in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD", "SOFTMAX")]
        for side in (ours, theirs)
    ]
    if [e["op"] for e in both[0]] != [e["op"] for e in both[1]]:
        print("     the layers differ in kind")
        return
    for a, b in zip(*both, strict=True):
        print(
            f"     {a['op']:18} {b['macs'] or 0:>10,} MACs {a['instructions']:>10,} {b['instructions']:>10,}"
            f" {ratio(a['instructions'], b['instructions']):>5}  {a['cycles']:>10,} cycles"
        )


def main() -> None:
    """Profiles and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--layers", action="store_true")
    parser.add_argument("--optimize", default="latency")
    given = parser.parse_args()
    results = json.loads((given.data / "peers.json").read_text(encoding="utf-8"))["results"]
    print("                    instructions (ours, peer, ratio) | cycles | RAM B | flash B")
    milliseconds: dict[str, float] = {}
    for core, target in TARGETS.items():
        for model in MODELS:
            theirs = peer(results, model, core)
            if theirs is None:
                print(f"{model:4} {core:14} no peer was counted")
                continue
            loaded = api.load_model(str(given.data / "models" / f"{model}_int8.tflite"))
            report: Any = api.profile(loaded, [target], optimize=given.optimize).to_json()
            ours = report["targets"][0]
            whole(model, core, ours, theirs)
            if ours["latency_ms"] is not None:
                milliseconds[model] = ours["latency_ms"]
            with_layers = peer(results, model, core, "O3")
            if given.layers and with_layers is not None and "layers" in with_layers:
                layer_lines(report["layers"], with_layers["layers"])
    print(f"\nmodelled ms on {TARGETS['cortex-m4']}, and the best published")
    for model, ours_ms in milliseconds.items():
        best = published(given.data / "mlperf_tiny_published.csv", model)
        print(f"{model:4} {ours_ms:8.2f}  " + ("none" if best is None else f"{best[0]:8.2f}  {best[1]}"))


if __name__ == "__main__":
    main()
