"""Bootstrap: how a mesh is found, and found again. Seeds and cached peers are asked for ever, with back-off and jitter.

No failure here is fatal and no success final: a seed that is not among the living is asked again, so meshes that
formed apart merge once one node of each meets. Knows addresses; knows nothing of claims.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import msgpack

from ..events import Report, Rng
from ..names import NodeId, node_id
from .timing import Timing

MAX_CACHED: Final = 64  # peers kept on disk; the more, the likelier one still lives after a long night
MAX_PAUSES: Final = 1_024  # sources remembered so that none gets the books, or is asked for its own, again at once


@dataclass(frozen=True, slots=True)
class Seed:
    """A node that can be dialled before anything was heard from it."""

    public_key: bytes  # CURVE, 32 raw bytes
    control: str  # tcp://HOST:PORT
    bulk: str = ""  # known of cached peers only

    @property
    def node(self) -> NodeId:
        return node_id(self.public_key)


def encode_peers(peers: Sequence[Seed]) -> bytes:
    packed: bytes = msgpack.packb([[seed.public_key, seed.control, seed.bulk] for seed in peers], use_bin_type=True)
    return packed


def decode_peers(data: bytes) -> tuple[Seed, ...]:
    """The peer cache as it was written; none where the bytes are torn, since a cache may be lost."""
    try:
        rows = msgpack.unpackb(data)
        seeds = tuple(Seed(key, control, bulk) for key, control, bulk in rows)
    except (ValueError, TypeError, msgpack.UnpackException):
        return ()
    whole = all(isinstance(s.public_key, bytes) and isinstance(s.control, str) for s in seeds)
    return seeds[:MAX_CACHED] if whole and all(isinstance(s.bulk, str) for s in seeds) else ()


class PeerCache:
    """Peers to keep on disk for the next life. Written a moment after an address was learnt, where they changed."""

    def __init__(self) -> None:
        self.due = float("inf")
        self._kept: bytes | None = None

    def write_by(self, time: float) -> None:
        """An address was learnt."""
        self.due = min(self.due, time)

    def take(self, peers: Sequence[Seed]) -> bytes | None:
        """What to write now of these, the steadiest first; None if that is there already. A lonely node keeps the
        addresses of better days."""
        self.due = float("inf")
        packed = encode_peers(peers[:MAX_CACHED])
        if not peers or packed == self._kept:
            return None
        self._kept = packed
        return packed


class Pauses:
    """Sources to which something long is said at most once in a while, however often they give cause for it."""

    def __init__(self) -> None:
        self._next_at: dict[NodeId, float] = {}

    def __len__(self) -> int:
        return len(self._next_at)

    def end(self, now: float, source: NodeId, pause_s: float) -> bool:
        """Whether it may be said to this one now; then not again for `pause_s`."""
        if now < self._next_at.get(source, now):
            return False
        if len(self._next_at) >= MAX_PAUSES:
            del self._next_at[next(iter(self._next_at))]
        self._next_at[source] = now + pause_s
        return True


@dataclass(slots=True)
class _Contact:
    seed: Seed
    due: float
    pause_s: float

    def ask_again(self, now: float, share: float, timing: Timing) -> None:
        """It was asked, and is again after `share` of a pause that doubles each time."""
        self.pause_s = min(2 * self.pause_s, timing.retry_max_s)
        self.due = now + self.pause_s * share

    def rest(self, now: float, share: float, timing: Timing) -> None:
        """It is among the living: look again much later, and begin with short pauses should it be gone then."""
        self.pause_s = timing.retry_min_s
        self.due = now + timing.retry_max_s * share


class Bootstrap:
    """When to ask which seed or cached peer next: the first at `deadline`."""

    def __init__(
        self, me: NodeId, seeds: Sequence[Seed], cached: Sequence[Seed], timing: Timing, rng: Rng, now: float
    ) -> None:
        self._rng = rng
        self._timing = timing
        self._contacts: dict[NodeId, _Contact] = {}
        self._silent = tuple(seed.control.removeprefix("tcp://") for seed in seeds if seed.node != me)
        self._alone_at = now + timing.resume_wait_s  # others may boot more slowly
        for index, seed in enumerate([*seeds, *cached[:MAX_CACHED]]):
            if seed.node != me and seed.node not in self._contacts:
                # Seeds at once; cached peers a few at a time, since the first answer makes most of them needless.
                wait_s = 0.0 if index < max(len(seeds), 3) else rng.uniform(0.0, index * timing.retry_min_s)
                self._contacts[seed.node] = _Contact(seed, now + wait_s, timing.retry_min_s)
        self.deadline = self._first_due()

    def take_due(self, now: float, living: Iterable[NodeId]) -> list[Seed]:
        """The contacts to ask now: due, and not among the living. Each is due again after a longer pause."""
        if now < self.deadline:
            return []
        known = frozenset(living)
        due: list[Seed] = []
        for node, contact in self._contacts.items():
            if contact.due > now:
                continue
            share = self._rng.uniform(0.5, 1.0)
            if node in known:
                contact.rest(now, share, self._timing)
            else:
                due.append(contact.seed)
                contact.ask_again(now, share, self._timing)
        self.deadline = self._first_due()
        return due

    def tell_alone(self, now: float, has_met: bool) -> list[Report]:
        """Once, if by now no seed has answered nor anybody else come: who forgot a line of an allow-list would look at
        a mesh of one that is well."""
        if not self._silent or now < self._alone_at:
            return []
        silent, self._silent = self._silent, ()
        return [] if has_met else [Report("membership.alone", {"seeds": ", ".join(silent)}, "warning")]

    def _first_due(self) -> float:
        return min((contact.due for contact in self._contacts.values()), default=float("inf"))
