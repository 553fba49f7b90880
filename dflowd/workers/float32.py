"""What user code gives as a number: taken if float32 holds it, else an error that names the code."""

from __future__ import annotations

import math
import numbers
import re
import struct
from typing import Any, SupportsFloat

from dflowd.jobs.failures import UserError

LARGEST = 3.4028234663852886e38  # that float32 holds
ADDRESS = re.compile(r" at 0x[0-9a-f]+")  # of an object: it is another one each time, and errors are compared


def float32_of(said: Any, maker: str) -> float:
    """`said` by the function `maker`, as a float that float32 holds. Booleans are 0 and 1; whatever says that it is a
    number is one (Decimal, numpy's and torch's scalars). Raises UserError."""
    if type(said) is float and abs(said) <= LARGEST:  # most are, and a partition may have a million
        return said
    value = _float(said)
    if value is None or not (math.isfinite(value) or isinstance(said, int)):
        raise UserError(f"{maker} gave {shown(said)} where a finite number is due")
    try:
        struct.pack("<f", value)
        is_held = math.isfinite(value)
    except OverflowError:
        is_held = False
    if not is_held:
        raise UserError(f"{maker} gave {shown(said)}, which is more than float32 holds (3.4e38)")
    return value


def shown(said: Any) -> str:
    """What was given, in a few words; also where showing it fails."""
    if said is None:
        return "nothing (None)"
    try:
        return ADDRESS.sub("", f"{said!r}")[:100]
    except Exception as error:  # it is user code that runs here, or Python's limit on digits
        return f"a {type(said).__name__} that cannot be shown ({type(error).__name__})"


def _float(said: Any) -> float | None:
    is_complex = isinstance(said, numbers.Complex) and not isinstance(said, numbers.Real)
    if not isinstance(said, SupportsFloat) or is_complex or getattr(said, "ndim", 0) != 0:
        return None
    try:
        return float(said)
    except OverflowError:  # an integer of hundreds of digits
        return float("inf")
    except Exception:  # it is user code that runs here
        return None
