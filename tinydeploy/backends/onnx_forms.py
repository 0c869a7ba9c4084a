"""The stored forms of constants in an ONNX file: packed integers as INT4 and INT2, the rest as metadata.

One entry of the model's metadata, FORMS_KEY, is a JSON object from initialiser to what its numbers do not
say: the bits of integers that ONNX has no type for, a codebook's table, bit planes. Weights in bit planes are
float there, in their dequantized values, so that any runtime computes with them.
"""

from __future__ import annotations

import base64

import numpy as np

from tinydeploy.ir.forms import Codebook, Form, Packed, Planes
from tinydeploy.ir.types import Array, Quantization, Value

FORMS_KEY = "tinydeploy.forms"

ONNX_BITS = {2: 26, 4: 22}
"""TensorProto's INT2 and INT4 by bits, from operator sets 25 and 21 on."""


def native_bits(form: Form | None) -> int | None:
    """The bits of a constant whose form is a type of ONNX."""
    return form.bits if isinstance(form, Packed) and form.bits in ONNX_BITS else None


def packed_bytes(data: Array, bits: int) -> bytes:
    """Elements of `bits` bits from the lowest bits of each byte up, as TensorProto stores them."""
    each = 8 // bits
    flat = data.astype(np.uint8).ravel() & ((1 << bits) - 1)
    padded = np.concatenate([flat, np.zeros(-len(flat) % each, np.uint8)]).reshape(-1, each)
    shifted = padded << (np.arange(each, dtype=np.uint8) * bits)
    return bytes(np.bitwise_or.reduce(shifted, axis=1).astype(np.uint8).tobytes())


def note(form: Form) -> dict[str, object] | None:
    """What the metadata says of a constant; None where its type says it all."""
    match form:
        case Packed():
            return None if native_bits(form) else {"form": "packed", "bits": form.bits}
        case Codebook():
            return {"form": "codebook", "bits": form.bits, "table": list(form.table)}
    return None


def planes_note(planes: Planes, signs: Array, quantization: Quantization, axis: int) -> dict[str, object]:
    """The same for bit planes.

    Args:
        signs: (planes, *shape of the initialiser).
        axis: of the initialiser, that counts outputs.
    """
    bits = [np.packbits(signs < 0)] + ([np.packbits(signs != 0)] if planes.ternary else [])
    return {
        "form": "planes",
        "axis": axis,
        "ternary": planes.ternary,
        "scales": list(quantization.scales),
        "coefficients": planes.coefficients.tolist(),
        "signs": base64.b64encode(b"".join(b.tobytes() for b in bits)).decode("ascii"),
    }


def real_weights(data: Array, quantization: Quantization, axis: int) -> Array:
    """Integers as the float32 numbers that they stand for."""
    shape = [1] * data.ndim
    shape[axis] = -1
    real: Array = (data.astype(np.float64) * np.array(quantization.scales).reshape(shape)).astype(np.float32)
    return real


def clip_ends(value: Value) -> tuple[float, float] | None:
    """What a packed activation is clipped to in front of its QuantizeLinear to int8, in real numbers."""
    if not isinstance(value.form, Packed) or value.form.bits == 8:
        return None
    low, high = (value.quant.scale * (end - value.quant.zero_point) for end in value.limits)
    return low, high
