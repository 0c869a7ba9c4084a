"""Calibrators and repairs compared on one network: accuracy and SQNR of its output, at several bits.

    python benchmarks/quantizers.py MODEL CALIBRATION TEST [--samples N] [--bits 8:8 4:8] [--no-adaround]

prints a row a method. Data are .npz files with x and y, such as `benchmarks/prepare.py` makes.
"""

from __future__ import annotations

import argparse
import time

from tinydeploy.data import Samples, fit_samples, open_dataset
from tinydeploy.evaluation import evaluate
from tinydeploy.ir.graph import Graph
from tinydeploy.model import load_model
from tinydeploy.ops.quantize import quantize_array
from tinydeploy.passes.dead_channels import remove_dead_channels
from tinydeploy.quantize import CALIBRATORS, QuantizeOptions, layer_errors, quantize
from tinydeploy.quantize.recipe_file import make_recipe
from tinydeploy.repair.steps import REPAIRS, Case

CHAINS = (("equalize",), ("bias",), ("bias-analytic",), ("adaround",), ("adaround", "bias"))


class Table:
    """Prints rows as they are known."""

    def __init__(self, graph: Graph, test: Samples) -> None:
        self._test = test
        float_value = evaluate(graph, test, model=graph.name).value
        print(
            f"| bits | method | accuracy | output SQNR dB | CPU s |\n|---|---|---|---|---|\n"
            f"| float | | {float_value:.2%} | | |",
            flush=True,
        )

    def row(self, bits: str, method: str, case: Case, seconds: float) -> None:
        value = case.integer.value(case.integer.inputs[0])
        x = quantize_array(self._test.inputs[0], value.quant, value.dtype)
        accuracy = evaluate(case.integer, Samples((x,), self._test.labels, ()), model=method).value
        sqnr = layer_errors(case.real, case.integer, [self._test.inputs[0][:64]])[-1].sqnr_db
        print(f"| {bits} | {method} | {accuracy:.2%} | {sqnr:.1f} | {seconds:.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("calibration")
    parser.add_argument("test")
    parser.add_argument("--samples", type=int, default=1000, help="of the test data")
    parser.add_argument("--calibration-samples", type=int, default=100)
    parser.add_argument("--bits", nargs="+", default=["8:8", "4:8", "8:4"])
    parser.add_argument("--no-adaround", action="store_true", help="leave out what needs PyTorch")
    given = parser.parse_args()
    graph = remove_dead_channels(load_model(given.model).graph)
    inputs = [
        x[: given.calibration_samples]
        for x in fit_samples(graph, open_dataset(given.calibration), scale=1.0, mean=0.0).inputs
    ]
    fitted = fit_samples(graph, open_dataset(given.test), scale=1.0, mean=0.0)
    assert fitted.labels is not None
    test = Samples((fitted.inputs[0][: given.samples],), fitted.labels[: given.samples], ())
    table = Table(graph, test)
    for bits in given.bits:
        recipe = make_recipe(bits)
        for calibration in CALIBRATORS:
            options, started = QuantizeOptions(calibration, recipe=recipe), time.process_time()
            case = Case(graph, quantize(graph, inputs, options), inputs, options)
            table.row(bits, calibration, case, time.process_time() - started)
        options = QuantizeOptions(recipe=recipe)
        for chain in CHAINS:
            if given.no_adaround and "adaround" in chain:
                continue
            case, started = (
                Case(graph, quantize(graph, inputs, options), inputs, options),
                time.process_time(),
            )
            for name in chain:
                case = REPAIRS[name](case)
            table.row(bits, "minmax, " + ", ".join(chain), case, time.process_time() - started)


if __name__ == "__main__":
    main()
