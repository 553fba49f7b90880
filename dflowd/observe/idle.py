"""How long this node's slots waited in the time of a step, where they sampled or trained.

Counted by the clock, from one version that the node made to the next one: where rollouts are ahead, what runs in a
step's time is not all of that step, so the cost of its tasks does not tell. Fed by what begins and ends in slots.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from dflow_protocols.books import SAMPLER, TRAINER
from dflow_protocols.events import Start
from dflow_protocols.names import RunId
from dflow_protocols.work import BlockWork, is_host_work

Waited: TypeAlias = dict[str, tuple[float, float]]
"""By role that the node had in a step: (seconds in which its slots did nothing for the run, of so many)."""


@dataclass(slots=True)
class _Window:
    """What one run's calls took since its last version. Seconds since 1970."""

    at_s: float  # until when `busy_s` is counted
    since_s: float | None = None  # when the node came to its last version, in this life
    busy_s: float = 0.0
    roles: set[str] = field(default_factory=set)
    running: dict[int, Start] = field(default_factory=dict)


class Idle:
    """Of this node, by run. `slots`: those with a device; what runs in a slot of the host's own, if there are
    `host_slots`, keeps none of them busy."""

    def __init__(self, slots: int, host_slots: int) -> None:
        self._slots: Final = slots
        self._has_host_slots: Final = host_slots > 0
        self._windows: dict[RunId, _Window] = {}
        self._runs: dict[int, RunId] = {}  # of calls that run

    def begin(self, asked: Start, now_s: float) -> None:
        """A call began in a slot. Told again when its engine had to start first: that is no waiting."""
        window = self._window(asked.run, now_s)
        window.running[asked.call] = asked
        window.roles |= _roles([asked])
        self._runs[asked.call] = asked.run

    def end(self, call: int, now_s: float) -> None:
        """It is over, whatever came of it."""
        run = self._runs.pop(call, None)
        if run is not None:
            del self._window(run, now_s).running[call]

    def advance(self, run: RunId, now_s: float, is_made: bool) -> Waited:
        """The node is at another version. What its slots waited since the one before; nothing where it made neither,
        since its time was no step's then."""
        window = self._window(run, now_s)
        waited: Waited = {}
        if is_made and window.since_s is not None:
            whole_s = self._slots * (now_s - window.since_s)
            left_s = max(0.0, whole_s - window.busy_s)
            waited = dict.fromkeys(sorted(window.roles), (left_s, whole_s))
        window.since_s, window.busy_s, window.roles = now_s, 0.0, _roles(window.running.values())
        return waited

    def forget(self, run: RunId) -> None:
        """The run is over."""
        window = self._windows.pop(run, None)
        for call in window.running if window is not None else ():
            self._runs.pop(call, None)

    def _window(self, run: RunId, now_s: float) -> _Window:
        """The run's, with what was busy counted until now."""
        window = self._windows.setdefault(run, _Window(now_s))
        window.busy_s += self._busy(window.running.values()) * max(0.0, now_s - window.at_s)
        window.at_s = now_s
        return window

    def _busy(self, running: Iterable[Start]) -> int:
        """How many slots these keep busy: partitions that may share one are spread over all that are free."""
        works = [asked.work for asked in running if not (self._has_host_slots and is_host_work(asked.work))]
        return min(self._slots, len(works))


def _roles(running: Iterable[Start]) -> set[str]:
    found = set()
    for asked in running:
        if asked.samples_from is not None:
            found.add(SAMPLER)
        elif isinstance(asked.work, BlockWork):
            found.add(TRAINER)
    return found
