"""How fast a mesh notices: all of membership's times, for a LAN, for a WAN, for daemons on one machine."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from .broadcast import RETRANSMIT_FACTOR

MOST_ANSWER_S = 8.0


def answer_s(suspicion_s: float) -> float:
    """The unit of delays that are waited for an answer, or for what may have been lost on its way: a suspicion time,
    but where a site is that patient with who is silent. A lost word is no sooner heard for that."""
    return min(suspicion_s, MOST_ANSWER_S)


@dataclass(frozen=True, slots=True)
class Timing:
    """All in seconds unless said otherwise. The defaults are those of a LAN; `wan` and `local` are deltas of them."""

    probe_interval_s: float = 1.0  # one member probed per interval; first detection in e/(e-1) intervals (SWIM 3.1)
    probe_timeout_s: float = 0.5  # ten round trips of a loaded LAN; the indirect probe must fit into the rest
    gossip_interval_s: float = 0.2  # news goes out at once, then this often until it was told often enough
    sync_interval_s: float = 30.0  # push-pull with one random member
    suspicion_intervals: float = 4.0  # a suspect has this many probe intervals to refute, in a mesh of up to ten
    suspicion_factor: float = 6.0  # so much longer while nobody confirms the suspicion (Lifeguard's beta)
    awareness_max: int = 8  # steps of the local health multiplier (Lifeguard's S)
    retry_min_s: float = 0.5  # first pause before a seed that did not answer is asked again
    retry_max_s: float = 30.0  # the pauses double up to this one, for ever
    ask_dead_s: float = 30.0  # how often one dead member is asked whether it is back
    stable_s: float = 10.0  # alive for so long, a member is dealt to
    resume_wait_s: float = 60.0  # after a restart, for those who were there before: machines boot unequally fast

    def __post_init__(self) -> None:
        assert 2 * self.probe_timeout_s <= self.probe_interval_s, "the indirect probe must fit into the interval"
        assert self.suspicion_factor >= 1.0 <= self.awareness_max
        assert 0.0 < self.retry_min_s <= self.retry_max_s

    @classmethod
    def lan(cls) -> Timing:
        return cls()

    @classmethod
    def wan(cls) -> Timing:
        return replace(
            cls(),
            probe_interval_s=5.0,
            probe_timeout_s=2.0,
            gossip_interval_s=0.5,
            sync_interval_s=60.0,
            suspicion_intervals=6.0,
            retry_max_s=60.0,
            ask_dead_s=60.0,
            stable_s=30.0,
            resume_wait_s=120.0,
        )

    @classmethod
    def local(cls) -> Timing:
        """Daemons that share one machine with busy engines: quick, yet a process starved for a second is not dead.

        A killed one is noticed in about 2 s: a probe begins within 0.15 s, fails after 0.3, is suspected for 1.35. A
        starved one has those 0.3 + 1.35 s to wake up and refute; awareness may not stretch them far.
        """
        return replace(
            cls(),
            probe_interval_s=0.3,
            probe_timeout_s=0.15,
            gossip_interval_s=0.05,
            sync_interval_s=5.0,
            suspicion_intervals=4.5,
            suspicion_factor=1.5,
            awareness_max=3,
            retry_min_s=0.2,
            retry_max_s=3.0,
            ask_dead_s=3.0,
            stable_s=2.0,
            resume_wait_s=5.0,
        )

    def suspicion_s(self, members: int) -> float:
        """How long a suspect that others suspect too has to refute; the unit of the step protocol's delays.

        members: how many there are. Among up to ten it is what a process may be stopped for. Among more, gossip needs
        longer to bring the suspicion to it and its denial to all: by so much it grows, with their logarithm.
        """
        further = max(0.0, math.log10(max(1, members)) - 1.0)
        there_and_back_s = 2 * RETRANSMIT_FACTOR * self.gossip_interval_s
        return self.suspicion_intervals * self.probe_interval_s + further * there_and_back_s

    def suspicion_max_s(self, members: int) -> float:
        """How long a suspect has whom nobody else suspects."""
        return self.suspicion_factor * self.suspicion_s(members)
