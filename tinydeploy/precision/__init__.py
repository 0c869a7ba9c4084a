"""Bits by layer, chosen: noise gains after Sakr and Shanbhag, the Hessian's trace, measured sensitivity."""

from tinydeploy.precision.allocate import Allocation, allocate, bound, least_bits, offsets, uniform
from tinydeploy.precision.choice import PrecisionChoice, choose, choose_or_say
from tinydeploy.precision.gains import Gain, noise_gains
from tinydeploy.precision.hessian import activation_traces, hessian_traces
from tinydeploy.precision.sensitivity import activation_sensitivity, layer_sensitivity

__all__ = [
    "Allocation",
    "Gain",
    "PrecisionChoice",
    "activation_sensitivity",
    "activation_traces",
    "allocate",
    "bound",
    "choose",
    "choose_or_say",
    "hessian_traces",
    "layer_sensitivity",
    "least_bits",
    "noise_gains",
    "offsets",
    "uniform",
]
