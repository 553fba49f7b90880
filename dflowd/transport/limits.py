"""How much one peer may send: token buckets by source.

Pure: time is an argument. Owns the arithmetic; the lanes decide what a frame costs and who is reported.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

MAX_SOURCES = 4096  # strangers' addresses are among them, and strangers choose theirs


@dataclass(frozen=True, slots=True)
class Rate:
    """What one source may send: sustained figures a second, and bursts of `burst_s` seconds' worth."""

    frames: float
    bytes: float
    burst_s: float = 2.0


NODE_RATE = Rate(frames=4_000, bytes=64 << 20)  # a step of a run is some hundred frames from a peer, 10 KB each
CLIENT_RATE = Rate(frames=200, bytes=32 << 20)  # people, scripts that poll, and files that are pushed
PACED_SHARE = 0.75  # of a rate; the rest is for what else its source asks meanwhile
PACED_BURST_S = 0.5


class Buckets:
    """One token bucket a source. A source that was never heard starts full."""

    def __init__(self) -> None:
        self._levels: dict[Hashable, tuple[float, float, float]] = {}  # source -> (at, frames left, bytes left)

    def take(self, now: float, source: Hashable, nbytes: int, rate: Rate) -> bool:
        """Whether a frame of this size may pass. One that may not costs nothing."""
        full_frames, full_bytes = rate.frames * rate.burst_s, rate.bytes * rate.burst_s
        at, frames, size = self._levels.get(source, (now, full_frames, full_bytes))
        frames = min(full_frames, frames + (now - at) * rate.frames)
        size = min(full_bytes, size + (now - at) * rate.bytes)
        passes = frames >= 1 and size >= nbytes
        if passes:
            frames, size = frames - 1, size - nbytes
        if source not in self._levels and len(self._levels) >= MAX_SOURCES:
            self._levels.pop(next(iter(self._levels)))
        self._levels[source] = (now, frames, size)
        return passes


class Pace:
    """Keeps sources that send the next piece when the last is answered below a rate, by how long answers wait. So what
    is large is never refused, over however fast a line, from however many programs with one key."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._due: dict[Hashable, float] = {}  # by source, when all that it sent has taken its time

    def wait_s(self, now: float, source: Hashable, nbytes: int) -> float:
        """Seconds for which the answer to a frame of this size has to wait."""
        takes_s = max(1 / self._rate.frames, nbytes / self._rate.bytes) / PACED_SHARE
        self._due[source] = max(self._due.get(source, 0.0), now - PACED_BURST_S) + takes_s
        return max(0.0, self._due[source] - now)
