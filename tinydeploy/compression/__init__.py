"""`compress`, step by step: pruning, training, bits, quantization, repair; each measured before and after."""

from tinydeploy.compression.steps import ACCURACY, Compression, CompressOptions, Inputs, Stage, compress

__all__ = ["ACCURACY", "CompressOptions", "Compression", "Inputs", "Stage", "compress"]
