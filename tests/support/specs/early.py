"""A reward for tests: how much of a completion is of the first half of the alphabet."""

from __future__ import annotations

from typing import Any


def share(completion: str, answer: str, **_: Any) -> float:
    return sum("a" <= letter <= "m" for letter in completion) / max(1, len(completion))
