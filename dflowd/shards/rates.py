"""How fast holders bring what they are asked for: which links are slow, for a person to know, and when that is over.

Pure: time is an argument. Only such time counts in which something that was asked for was waited for.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from dflow_protocols.events import Report
from dflow_protocols.names import NodeId

SLOW_BYTES_S = 2 << 20  # 17 Mbit/s: a chunk takes half a second
BRIEF_BYTES = 64 << 10  # what is no longer takes as long as its way does, whatever a link carries
JUDGED_S = 5.0  # of waiting: a process that is starved for a while is no slow link
JUDGED_BYTES = 4 << 20  # after which a link that was slow may be found to be so no more
RECOVERED = 2  # times as fast as what counts as slow
AGAIN_S = 1800.0  # after which it is said once more of a link that is slow still; within what the concern stands for


@dataclass(slots=True)
class _Rate:
    """Of one holder, since it was last judged."""

    since: float | None = None  # it is being waited for since then, or since its last chunk
    seconds: float = 0.0
    nbytes: int = 0
    is_slow: bool = False
    said_at: float = -inf  # that it is slow

    def wait(self, now: float) -> None:
        """From now on, unless it is waited for already."""
        self.since = now if self.since is None else self.since

    def rest(self) -> None:
        self.since = None

    def skip(self, now: float) -> None:
        """Until now what was waited for says nothing of its link."""
        self.since = None if self.since is None else now

    def add(self, now: float, nbytes: int) -> None:
        if self.since is not None:
            self.seconds, self.nbytes, self.since = self.seconds + now - self.since, self.nbytes + nbytes, now

    def judge(self, now: float) -> int | None:
        """Bytes a second, if the link is slow by that and was not before, or the other way round; and again if it is
        slow still and that was said long ago."""
        bytes_s = self.nbytes / max(self.seconds, 1e-9)
        is_quick = self.nbytes >= JUDGED_BYTES and bytes_s >= RECOVERED * SLOW_BYTES_S
        if not is_quick and self.seconds < JUDGED_S:
            return None
        was_slow = self.is_slow
        self.is_slow = not is_quick and (was_slow or bytes_s < SLOW_BYTES_S)
        self.seconds, self.nbytes = 0.0, 0
        if was_slow is self.is_slow and not (self.is_slow and now >= self.said_at + AGAIN_S):
            return None
        self.said_at = now
        return round(bytes_s)


class Rates:
    """One node's, by holder."""

    def __init__(self) -> None:
        self._rates: dict[NodeId, _Rate] = {}

    def asked(self, now: float, holder: NodeId) -> None:
        """Something is asked of it; perhaps it is waited for already."""
        self._rates.setdefault(holder, _Rate()).wait(now)

    def came(self, now: float, holder: NodeId, nbytes: int) -> Report | None:
        """It brought so many bytes. A report, where its link is slow by that, or is no more."""
        rate = self._rates.setdefault(holder, _Rate())
        if nbytes <= BRIEF_BYTES:
            rate.skip(now)
            return None
        rate.add(now, nbytes)
        bytes_s = rate.judge(now)
        if bytes_s is None:
            return None
        fields = {"peer": holder, "bytes_s": bytes_s}
        return (
            Report("transport.slow_link", fields, "warning")
            if rate.is_slow
            else Report("transport.link_recovered", fields)
        )

    def idle(self, holder: NodeId) -> None:
        """Nothing is asked of it any more, or nothing will come."""
        rate = self._rates.get(holder)
        if rate is not None:
            rate.rest()
