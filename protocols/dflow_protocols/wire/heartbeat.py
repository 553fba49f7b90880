"""What rides on every frame of a node: where it stands in its runs, as far as the receiver does not know it."""

from __future__ import annotations

from dataclasses import dataclass

from ..names import NodeId, RunId
from .steps import Head, Withdrawal


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Where a node is in a run. It is told with every frame until the receiver has it, so that news of versions spreads
    by itself."""

    run: RunId
    own: Head | None  # newest version the sender holds whole
    best: Head | None  # best one that it has heard of from a living holder
    holder: NodeId | None  # who claimed `best`
    backlog: int = 0  # units of the open step that wait at the sender and that it would give away
    withdrawn: tuple[Withdrawal, ...] = ()
    pinned: Head | None = None  # the version that the sender copies, or goes on from to reach the others
    everywhere: int = 0  # steps done in the newest version that all on duty hold, as they told the sender
    entered: int = 0  # steps done in the version that the sender copied or loaded last: it made all that follow
    attempt: int = 0  # of the run, as the sender knows it


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """How often a node's heartbeats have changed: of two marks of one node the greater is the newer one."""

    incarnation: int  # of the node's process
    number: int  # of changes in its life


@dataclass(frozen=True, slots=True)
class Delta:
    """The sender's heartbeats that changed after what the receiver has acknowledged (Scuttlebutt reconciliation, van
    Renesse et al. 2008)."""

    mark: Mark  # of what the sender says
    since: int  # number of the mark after which these changed; 0: these are all
    acknowledged: Mark | None  # the newest mark of the receiver whose heartbeats the sender has, all of them
    heartbeats: tuple[Heartbeat, ...]
