"""How training sees quantized weights and activations: one small file a method, each with its source.

A method gives back what the integers stand for, with a gradient of its own, and says how that lowers: a
`Scheme` for weights, a `Range` for activations. So evaluation and export know stored forms only. A further
method is one class, and one line where `simulation` chooses. The files need PyTorch.
"""
