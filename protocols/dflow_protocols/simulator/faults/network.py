"""What networks do, as data, and how it is done to one: cuts that heal, links that never do, frames that are lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

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


NetworkFault: TypeAlias = Cut | Split | Sever | Lose


def inject(target: FaultTarget, fault: NetworkFault) -> None:
    match fault:
        case Cut(source, to, seconds):
            _cut(target, {(target.hosts[source].id, target.hosts[to].id)}, seconds)
        case Split(side, seconds, inbound):
            _cut(target, _between(target, side, inbound), seconds)
        case Sever(one, other):
            target.network.sever(target.hosts[one].id, target.hosts[other].id)
        case Lose(share):
            target.network.lose_share(share)


def _between(target: FaultTarget, side: tuple[int, ...], inbound: bool) -> set[tuple[NodeId, NodeId]]:
    inside = [target.hosts[index].id for index in side]
    outside = [host.id for host in target.hosts if host.index not in side]
    pairs = {(there, here) for here in inside for there in outside}
    return pairs if inbound else pairs | {(here, there) for there, here in pairs}


def _cut(target: FaultTarget, pairs: set[tuple[NodeId, NodeId]], seconds: float) -> None:
    target.network.cut(pairs)
    target.after(seconds, lambda: target.network.join(pairs))
