"""What befalls disks, stores and what lies there, as data, and how it is done to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from ..model.host import Host
from .target import FaultTarget, crash, named


@dataclass(frozen=True, slots=True)
class FullDisk:
    """The disk takes nothing for a while: it is full, or was mounted anew to be read only. What lies there can be read;
    a daemon that ends meanwhile does not start before there is room."""

    seconds: float
    node: int | None = None


@dataclass(frozen=True, slots=True)
class LoseState:
    """The machine dies, and comes back a while later without its state directory. Its key lay elsewhere
    (`trust.key_file`), so it is the node that it was, in a life that calls itself the first."""

    restart_after_s: float
    node: int | None = None


@dataclass(frozen=True, slots=True)
class FillStore:
    """Something else takes all the room that the node's store has left, for a while: what comes then has to wait, or
    something to give way."""

    seconds: float
    node: int | None = None


DiskFault: TypeAlias = FullDisk | LoseState | FillStore


def inject(target: FaultTarget, fault: DiskFault, actor: Host | None) -> None:
    host = named(target, fault.node, actor)
    match fault:
        case FullDisk(seconds):
            host.disk.fill()
            target.after(seconds, host.disk.make_room)
        case FillStore(seconds):
            host.store.fill()
            target.after(seconds, lambda: host.store.make_room())
        case LoseState(restart_after_s):
            crash(target, host, restart_after_s)
            host.disk.wipe()
