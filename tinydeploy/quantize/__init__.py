"""Float graphs to int8 graphs: calibration, post-training quantization, and the error that it makes."""

from tinydeploy.quantize.calibrate import calibrate
from tinydeploy.quantize.error import LayerError, first_bad_layer, layer_errors
from tinydeploy.quantize.observers import CALIBRATORS, Calibrator, make_calibrator
from tinydeploy.quantize.ptq import QuantizeOptions, quantize, quantize_with_ranges
from tinydeploy.quantize.scales import Range

__all__ = [
    "CALIBRATORS",
    "Calibrator",
    "LayerError",
    "QuantizeOptions",
    "Range",
    "calibrate",
    "first_bad_layer",
    "layer_errors",
    "make_calibrator",
    "quantize",
    "quantize_with_ranges",
]
