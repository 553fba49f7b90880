"""Whether a completion's last answer is that of a line of GSM8K (arXiv 2110.14168), by the package math-verify."""

import logging

from math_verify import parse, verify

logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns of each call without a time limit
MOST_CHARACTERS = 400  # of a completion that are looked at, from its end: the answer stands there, and none takes long


def score(completion: str, answer: str) -> float:
    """1 for the right number, however it is written (72, 72.0, $72, \\boxed{72}), else 0.

    `answer`: GSM8K's, a derivation that ends with `#### 72`, or the number alone. Its time limits work by signals, and
    only in a process's main thread: they are off.
    """
    right = answer.rpartition("####")[2].strip().replace(",", "")
    said = parse(completion[-MOST_CHARACTERS:], parsing_timeout=None)
    return float(verify(parse(right, parsing_timeout=None), said, timeout_seconds=None))
