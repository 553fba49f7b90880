"""What is wrong with this daemon now: for `status`, which `dflow doctor` reads.

A problem stands until whoever noticed it takes it back. What happened and is over is a report, not a problem.
"""

from __future__ import annotations

import math
import time

MOST = 64  # then the oldest go: nobody reads more at once


class Problems:
    """Standing problems by a key of whoever notices them, each with what a person can do about it."""

    def __init__(self) -> None:
        self._standing: dict[str, tuple[str, str, float]] = {}  # what, hint, until when it stands unless told again

    def note(self, key: str, what: str, hint: str, stands_s: float = math.inf) -> None:
        """Say that it stands, or how it stands now. `stands_s`: for so long, where nobody can tell when it is over."""
        self._standing[key] = (what, hint, time.monotonic() + stands_s)
        if len(self._standing) > MOST:
            del self._standing[next(iter(self._standing))]

    def clear(self, key: str) -> None:
        self._standing.pop(key, None)

    def rows(self) -> list[dict[str, str]]:
        """{key, what, hint} of each, the oldest first."""
        now = time.monotonic()
        self._standing = {key: problem for key, problem in self._standing.items() if now < problem[2]}
        return [{"key": key, "what": what, "hint": hint} for key, (what, hint, _) in self._standing.items()]
