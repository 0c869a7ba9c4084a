"""The operators: one file per op or tight family, and the registry that finds them by kind."""

from tinydeploy.ops.activation import Activation, Logistic, Relu, Softmax
from tinydeploy.ops.convolution import Conv2D, DepthwiseConv2D
from tinydeploy.ops.elementwise import Add, Mul
from tinydeploy.ops.fully_connected import FullyConnected
from tinydeploy.ops.movement import Concatenation, Pad, Reshape
from tinydeploy.ops.pooling import AveragePool2D, MaxPool2D
from tinydeploy.ops.quantize import Dequantize, Quantize
from tinydeploy.ops.reduction import Mean
from tinydeploy.ops.sign import Sign
from tinydeploy.ops.staircase import Staircase
from tinydeploy.ops.window import Padding

OPS = {
    op.kind: op
    for op in (
        Add,
        AveragePool2D,
        Concatenation,
        Conv2D,
        DepthwiseConv2D,
        Dequantize,
        FullyConnected,
        Logistic,
        MaxPool2D,
        Mean,
        Mul,
        Pad,
        Quantize,
        Relu,
        Reshape,
        Sign,
        Softmax,
        Staircase,
    )
}

__all__ = [
    "OPS",
    "Activation",
    "Add",
    "AveragePool2D",
    "Concatenation",
    "Conv2D",
    "DepthwiseConv2D",
    "Dequantize",
    "FullyConnected",
    "Logistic",
    "MaxPool2D",
    "Mean",
    "Mul",
    "Pad",
    "Padding",
    "Quantize",
    "Relu",
    "Reshape",
    "Sign",
    "Softmax",
    "Staircase",
]
