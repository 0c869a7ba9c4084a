"""What a precision costs and what it spoils: bits, full adders, noise, divergence."""

from tinydeploy.analysis.analyze import analyze
from tinydeploy.analysis.bits import Precision, stored_bits
from tinydeploy.analysis.result import Analysis, LayerAnalysis, TensorAnalysis

__all__ = ["Analysis", "LayerAnalysis", "Precision", "TensorAnalysis", "analyze", "stored_bits"]
