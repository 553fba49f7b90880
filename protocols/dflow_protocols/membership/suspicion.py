"""A suspect's time to refute shrinks with each further member that suspects it (Lifeguard section IV-B)."""

from __future__ import annotations

import math

from ..names import NodeId

CONFIRMATIONS = 2  # K: after so many the wait is as short as it gets; memberlist takes its multiplier less two


def suspicion_timeout_s(confirmed: int, wanted: int, least_s: float, most_s: float) -> float:
    """least_s + (most_s - least_s) * (1 - log(confirmed + 1) / log(wanted + 1)), not below least_s.

    confirmed: independent suspicions beside the first. wanted: how many bring it down to `least_s`; with none to be
    had at all it is `least_s`.
    """
    if wanted <= 0:
        return least_s
    share = math.log(confirmed + 1) / math.log(wanted + 1)
    return max(least_s, most_s - share * (most_s - least_s))


class Suspicion:
    """One member under suspicion: since when, and who agrees."""

    def __init__(self, now: float, accuser: NodeId, others: int, least_s: float, most_s: float) -> None:
        """`others`: how many members beside the accuser could confirm."""
        self.started = now
        self._accusers = {accuser}
        self._wanted = CONFIRMATIONS if others >= CONFIRMATIONS else 0
        self._least_s = least_s
        self._most_s = most_s

    @property
    def deadline(self) -> float:
        """When the suspect counts as dead."""
        confirmed = len(self._accusers) - 1
        return self.started + suspicion_timeout_s(confirmed, self._wanted, self._least_s, self._most_s)

    def confirm(self, accuser: NodeId) -> bool:
        """Count an accuser; whether that was news worth passing on."""
        if accuser in self._accusers or len(self._accusers) > self._wanted:
            return False
        self._accusers.add(accuser)
        return True

    def restart(self, now: float) -> None:
        """The judge itself was asleep: what it did not hear before proves nothing."""
        self.started = now
