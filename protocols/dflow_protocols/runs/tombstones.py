"""How long an ended run is remembered: its status is kept so that who was away learns the end, and forgotten after
thirty days, so that neither disk nor memory grows for ever.

An end's age travels with it. Else nodes would remind each other of an old run for ever, each time as if it had just
ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from ..names import RunId

TOMBSTONE_S: Final = 30 * 86_400.0  # longer than any machine is away and comes back with its disk


class Ended(Protocol):
    @property
    def has_ended(self) -> bool: ...


class Tombstones:
    """When runs ended, in the node's own time."""

    def __init__(self) -> None:
        self._ended_at: dict[RunId, float] = {}

    def note(self, now: float, run: RunId, age_s: float) -> None:
        """The run ended so long ago."""
        self._ended_at[run] = now - age_s

    def age_s(self, now: float, run: RunId) -> float:
        """Since its end; 0 while it is active."""
        return now - self._ended_at.get(run, now)

    def take_old(self, now: float, runs: Mapping[RunId, Ended]) -> list[RunId]:
        """Runs to forget now. Notes which have ended, or begun again, since the last call."""
        for name, run in runs.items():
            if run.has_ended:
                self._ended_at.setdefault(name, now)
        self._ended_at = {name: at for name, at in self._ended_at.items() if name in runs and runs[name].has_ended}
        return [name for name, at in self._ended_at.items() if now - at >= TOMBSTONE_S]
