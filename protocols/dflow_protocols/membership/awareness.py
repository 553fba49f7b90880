"""Local health multiplier: a node whose probes fail at many suspects itself first (Lifeguard section IV-A)."""

from __future__ import annotations


class Awareness:
    """The health score, from 0 (healthy) to `steps - 1`. It stretches only this node's own probe times."""

    def __init__(self, steps: int) -> None:
        assert steps >= 1
        self.score = 0
        self._steps = steps

    def note(self, delta: int) -> None:
        """-1 for a probe that was answered; +1 for a missed answer, a missed nack, an own refutation, a stall."""
        self.score = min(max(self.score + delta, 0), self._steps - 1)

    def stretch(self, seconds: float) -> float:
        return seconds * (self.score + 1)
