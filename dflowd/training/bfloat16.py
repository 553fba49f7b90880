"""bfloat16 without a library that has it: the upper half of a float32, as uint16 in numpy.

Rounded to the nearest, of two as near to the even one, as PyTorch and every GPU do it, so each value is a function of
the float32 alone. All that is not a number becomes one of fixed bytes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Bits = npt.NDArray[np.uint16]
Floats = npt.NDArray[np.float32]

NOT_A_NUMBER = 0x7FC0


def narrow(values: Floats) -> Bits:
    """[n] float32 -> the bits of as many bfloat16."""
    bits = values.view(np.uint32)
    odd = (bits >> 16) & 1
    odd += 0x7FFF
    odd += bits
    odd >>= 16
    found = odd.astype(np.uint16)
    broken = np.isnan(values)
    if broken.any():
        found[broken] = NOT_A_NUMBER
    return found


def widen(bits: Bits) -> Floats:
    """[n] bits -> the same values as float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def rounded(values: Floats) -> Floats:
    """[n] float32 -> the nearest bfloat16 of each, as float32."""
    return widen(narrow(values))
