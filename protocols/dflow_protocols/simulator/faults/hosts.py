"""What befalls machines, as data, and how it is done to them: lives that end, engines and devices that break."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from random import Random
from typing import TypeAlias

from ...events import Leaving
from ...work import FailureKind
from ..model.host import Host
from .target import FaultTarget, crash, named, start_later

ASK_AGAIN_S = 1.0
HANDICAPS = ("broken", "slow", "read-only", "mute")


@dataclass(frozen=True, slots=True)
class Crash:
    """Memory and engines are gone, the disk stays. Comes back after a while, or never."""

    node: int | None = None
    restart_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class PowerCut:
    """Every node dies at once. All but `stays_off` come back, each after a time drawn up to `seconds`; of `torn` the
    newest checkpoint is damaged, of `lost` the whole disk is a new one."""

    seconds: float
    stays_off: tuple[int, ...] = ()
    torn: tuple[int, ...] = ()
    lost: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Pause:
    """SIGSTOP: nothing is handled; what arrives meanwhile is handled on waking, and engines go on."""

    seconds: float
    node: int | None = None


@dataclass(frozen=True, slots=True)
class BreakEngine:
    """The next `works` works of the node's engine break: `engine` (out of memory, killed) or `user` (code raised in
    a partition)."""

    works: int
    kind: FailureKind = "engine"
    node: int | None = None


@dataclass(frozen=True, slots=True)
class HangEngine:
    """The next work of the node's engine never ends, until its supervisor gives it up after `seconds`."""

    seconds: float
    node: int | None = None


@dataclass(frozen=True, slots=True)
class LoseDevices:
    """All devices of the node fail, and answer again after a while, or never in this life."""

    seconds: float | None = None
    node: int | None = None


@dataclass(frozen=True, slots=True)
class Join:
    """A node that was not there before starts."""

    node: int


@dataclass(frozen=True, slots=True)
class Leave:
    """SIGTERM: the node is asked to leave, and its process ends a while later."""

    node: int
    seconds: float = 1.0


@dataclass(frozen=True, slots=True)
class Drain:
    """A client of the node has it take no new work, and some again a while later, or never."""

    node: int
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Handicap:
    """What calm does not heal, for the rest of the machine's days: `broken` (whatever its engine does fails at once),
    `slow` (it takes five times as long), `read-only` (its disk takes no checkpoint), `mute` (serves nobody a shard)."""

    kind: str
    node: int


@dataclass(frozen=True, slots=True)
class Clone:
    """The node's state directory is copied, its key with it, and a while later a second process starts with the copy on
    another machine, for good. `returns_after_s`: the first one dies as it is copied, and comes back after so long;
    None: it lives on."""

    starts_after_s: float
    returns_after_s: float | None = None
    node: int | None = None


HostFault: TypeAlias = (
    Crash | PowerCut | Pause | BreakEngine | HangEngine | LoseDevices | Join | Leave | Drain | Handicap | Clone
)


def inject(target: FaultTarget, fault: HostFault, actor: Host | None) -> None:
    match fault:
        case Crash(node, restart_after_s):
            crash(target, named(target, node, actor), restart_after_s)
        case PowerCut():
            _cut_power(target, fault)
        case Pause(seconds, node):
            _pause(target, named(target, node, actor), seconds)
        case BreakEngine(works, kind, node):
            named(target, node, actor).health.break_next(works, kind)
        case HangEngine(seconds, node):
            named(target, node, actor).health.hang_next(seconds)
        case LoseDevices(seconds, node):
            _lose_devices(target, named(target, node, actor), seconds)
        case Join(index):
            if target.hosts[index].process is None:
                target.start(target.hosts[index])
        case Leave(index, seconds):
            target.after(0.0, lambda: target.deliver(target.hosts[index], Leaving()))
            target.after(seconds, lambda: target.kill(target.hosts[index]))
        case Drain(index, lasting_s):
            target.after(0.0, partial(target.drain, index, True))
            if lasting_s is not None:
                target.after(lasting_s, partial(_take_back, target, target.hosts[index]))
        case Handicap(handicap, index):
            target.hosts[index].health.impair(handicap)
        case Clone(starts_after_s, returns_after_s, node):
            original = named(target, node, actor)
            start_later(target, target.copy(original), starts_after_s)
            if returns_after_s is not None:
                crash(target, original, returns_after_s)


def _cut_power(target: FaultTarget, cut: PowerCut) -> None:
    for host in target.hosts:
        if host.process is None:
            continue
        off_s = Random(f"{target.seed}/{host.name}/{target.now}").uniform(0.0, cut.seconds)
        crash(target, host, None if host.index in cut.stays_off else off_s)
        if host.index in cut.lost:
            host.disk.wipe()
        elif host.index in cut.torn:
            host.disk.tear_newest()


def _pause(target: FaultTarget, host: Host, seconds: float) -> None:
    if not host.answers:
        return
    host.pause()
    process = host.process
    target.after(seconds, lambda: target.wake(host) if host.paused and host.process is process else None)


def _lose_devices(target: FaultTarget, host: Host, seconds: float | None) -> None:
    process = host.process
    if process is None:
        return
    process.slots.lose_devices()
    if seconds is not None:
        target.after(seconds, lambda: process.slots.regain_devices() if host.process is process else None)


def _take_back(target: FaultTarget, host: Host) -> None:
    """It takes work again; who wants that asks until somebody is there to hear it."""
    if host.comes_back:
        target.after(ASK_AGAIN_S, lambda: _take_back(target, host))
    else:
        target.drain(host.index, False)
