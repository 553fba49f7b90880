"""What user code gives as a number: taken if float32 holds it, else an error that names the code and its stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, SupportsFloat

import numpy as np

from dflowd.data import columns
from dflowd.jobs.failures import UserError


def float32_of(said: Any, maker: str, stage: str) -> float:
    """`said` by the function `maker`, as a float that float32 holds. Booleans are 0 and 1; whatever says that it is a
    number is one (Decimal, numpy's and torch's scalars). Raises UserError."""
    value = _float(said)
    if value is None or not (np.isfinite(value) or isinstance(said, int)):
        raise UserError(f"{maker} gave {shown(said)} where a finite number is due", stage)
    with np.errstate(over="ignore"):
        if not np.isfinite(np.float32(value)):
            raise UserError(f"{maker} gave {shown(said)}, which is more than float32 holds (3.4e38)", stage)
    return value


def float32s_of(said: Any, count: int, maker: str, stage: str) -> columns.Array:
    """A list of `count` numbers, [count] float32. Raises UserError."""
    if not isinstance(said, Sequence | np.ndarray) or isinstance(said, str | bytes) or len(said) != count:
        given = f"{len(said)} values" if isinstance(said, Sequence | np.ndarray) else shown(said)
        raise UserError(f"{maker} gave {given} where a list of {count} numbers is due", stage)
    return np.array([float32_of(value, maker, stage) for value in said], np.float32)


def shown(said: Any) -> str:
    """What was given, in a few words; also where showing it fails."""
    if said is None:
        return "nothing (None)"
    try:
        return f"{said!r}"[:100]
    except Exception as error:  # it is user code that runs here, or Python's limit on digits
        return f"a {type(said).__name__} that cannot be shown ({type(error).__name__})"


def _float(said: Any) -> float | None:
    is_number = isinstance(said, SupportsFloat) and not isinstance(said, np.complexfloating)
    if not is_number or getattr(said, "ndim", 0) != 0:
        return None
    try:
        return float(said)
    except OverflowError:  # an integer of hundreds of digits
        return float("inf")
    except Exception:  # it is user code that runs here
        return None
