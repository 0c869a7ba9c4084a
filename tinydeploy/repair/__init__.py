"""Repair after quantization: what makes an integer graph nearer to its float graph, and leaves it ordinary.

equalize       channels of neighbouring layers brought to like ranges, before quantization
adaround       learned rounding of the weights
bias           the mean error of each channel, measured, taken out of the bias
bias-analytic  the same, computed from the moments of the network's input
"""

from tinydeploy.repair.adaround import AdaRoundOptions, adaround
from tinydeploy.repair.bias import correct_biases, correct_biases_analytically
from tinydeploy.repair.equalize import equalize

__all__ = ["AdaRoundOptions", "adaround", "correct_biases", "correct_biases_analytically", "equalize"]
