"""Checks of a completion by rules: its answer, its form, its length."""

from __future__ import annotations

import logging
import re

MOST_CHARACTERS = 400  # of a completion in which its answer is looked for, from its end: there it stands


def math(completion: str, answer: str) -> float:
    """1 for the right number or expression, however it is written (72, 72.0, $72, \\boxed{72}, \\frac{1}{2}), else 0.

    Parsed and compared by the package math-verify. `answer` may be a derivation that ends with `#### 72`, as in GSM8K
    (arXiv 2110.14168). Its own time limits need signals; a worker has one.
    """
    from math_verify import parse, verify

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns of each call without a time limit
    right = answer.rpartition("####")[2].strip().replace(",", "")
    said = parse(completion[-MOST_CHARACTERS:], parsing_timeout=None)
    return float(verify(parse(right, parsing_timeout=None), said, timeout_seconds=None))


def form(completion: str, *, pattern: str) -> float:
    """1 if the whole completion, surrounding space aside, is of the form `pattern` (Python's `re`; a dot is any
    character), else 0."""
    return float(re.fullmatch(pattern, completion.strip(), re.DOTALL) is not None)


def overlong(completion: str, tokens: int, *, most: int, buffer: int) -> float:
    """What a completion is docked for its length: 0 up to `most - buffer` tokens, down to -1 at `most` and beyond.

    The soft overlong punishment of DAPO (arXiv 2503.14476, equation 13).
    """
    if not 0 < buffer <= most:
        raise ValueError(f"`buffer` is {buffer}; it is at least 1 and at most `most`, {most}")
    return max(-1.0, min(0.0, (most - buffer - tokens) / buffer))
