"""What `compress` writes."""

from __future__ import annotations

import json
from dataclasses import replace

from tinydeploy.backends.onnx import write_onnx
from tinydeploy.backends.tflite import write_tflite
from tinydeploy.backends.tflite_forms import unwritable
from tinydeploy.compression import Compression
from tinydeploy.report.sensitivity import sensitivity_svg

OPTIONAL_FILES = ("model.tflite", "sensitivity.svg")
"""Those that not every run writes: an old one must not pass for the new one's."""


def compressed_files(result: Compression) -> tuple[Compression, dict[str, bytes]]:
    """Both models, the report, and after a scan its plot, by file name.

    Where TFLite has no form for a tensor, or no operator, there is no model.tflite, and the result says why.

    Raises:
        DeployError: a format has no form for something else in the graph.
    """
    files = {"model.onnx": write_onnx(result.graph)}
    refused = unwritable(result.graph)
    if refused is None:
        files["model.tflite"] = write_tflite(result.graph)
    result = replace(result, tflite_refused=refused)
    files["report.json"] = (json.dumps(result.to_json(), indent=2) + "\n").encode()
    if result.sensitivity is not None:
        plot = sensitivity_svg(result.sensitivity, result.widths, result.metric or "", result.model)
        files["sensitivity.svg"] = plot.encode()
    return result, files
