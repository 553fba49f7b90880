"""What networks do, as data, and how it is done to one: links that are cut, frames that are lost, late or repeated."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from ...events import Lane
from ...names import NodeId
from .target import FaultTarget


@dataclass(frozen=True, slots=True)
class Cut:
    """Nothing passes from `source` to `to` for a while."""

    source: int
    to: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Split:
    """Nothing passes between `side` and the rest for a while; `inbound`: only nothing into it."""

    side: tuple[int, ...]
    seconds: float
    inbound: bool = False


@dataclass(frozen=True, slots=True)
class Sever:
    """Two machines never hear each other again; others hear both."""

    one: int
    other: int


@dataclass(frozen=True, slots=True)
class Lose:
    """So large a share of all frames never arrives, until everything heals."""

    share: float


@dataclass(frozen=True, slots=True)
class Repeat:
    """So large a share of all frames arrives twice, as from a sender that tried again, until everything heals."""

    share: float


@dataclass(frozen=True, slots=True)
class Stall:
    """What `source` sends to `to` for a while arrives once that is over, all at once and in any order, as over
    connections that were dialled again. Chunks pass."""

    source: int
    to: int
    seconds: float


@dataclass(frozen=True, slots=True)
class FillQueue:
    """For a while no frame fits into the queue from `source` to `to`: they are dropped without a word. Chunks pass."""

    source: int
    to: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Narrow:
    """Each link carries so many bytes a second one way, of both lanes together: frames wait for what its queue holds of
    chunks. Until everything heals."""

    bytes_per_s: float


@dataclass(frozen=True, slots=True)
class CloseLane:
    """A firewall: for a while nobody can open a connection to this lane of the node's, while it can to others'."""

    lane: Lane
    seconds: float
    node: int


NetworkFault: TypeAlias = Cut | Split | Sever | Lose | Repeat | Stall | FillQueue | Narrow | CloseLane


def inject(target: FaultTarget, fault: NetworkFault) -> None:
    match fault:
        case Cut(source, to, seconds):
            _cut(target, {(target.hosts[source].place, target.hosts[to].place)}, seconds)
        case Split(side, seconds, inbound):
            _cut(target, _between(target, side, inbound), seconds)
        case Sever(one, other):
            target.network.sever(target.hosts[one].place, target.hosts[other].place)
        case Lose(share):
            target.network.lose_share(share)
        case Repeat(share):
            target.network.repeat_share(share)
        case Stall(source, to, seconds):
            way = (target.hosts[source].place, target.hosts[to].place)
            target.network.hold(way, target.now + seconds)
            target.after(seconds, partial(target.network.release, way))
        case FillQueue(source, to, seconds):
            way = (target.hosts[source].place, target.hosts[to].place)
            target.network.fill(way)
            target.after(seconds, partial(target.network.empty, way))
        case Narrow(bytes_per_s):
            target.network.narrow(bytes_per_s)
        case CloseLane(lane, seconds, node):
            closed = target.hosts[node].place
            target.network.close(closed, lane)
            target.after(seconds, partial(target.network.open, closed, lane))


def _between(target: FaultTarget, side: tuple[int, ...], inbound: bool) -> set[tuple[NodeId, NodeId]]:
    inside = [target.hosts[index].place for index in side]
    outside = [host.place for host in target.hosts if host.index not in side]
    pairs = {(there, here) for here in inside for there in outside}
    return pairs if inbound else pairs | {(here, there) for there, here in pairs}


def _cut(target: FaultTarget, pairs: set[tuple[NodeId, NodeId]], seconds: float) -> None:
    target.network.cut(pairs)
    target.after(seconds, lambda: target.network.join(pairs))
