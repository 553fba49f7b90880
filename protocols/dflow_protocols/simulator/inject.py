"""Fault injection: what each fault does to its target. Knows that target by its Protocol alone."""

from __future__ import annotations

from functools import partial
from random import Random

from ..events import Leaving
from ..names import NodeId
from .faults import (
    BreakEngine,
    Cancel,
    Crash,
    Cut,
    Drain,
    Fault,
    FaultTarget,
    Handicap,
    Join,
    Leave,
    Lose,
    LoseDevices,
    Pause,
    Poison,
    PowerCut,
    Sever,
    Split,
)
from .model.host import Host

ASK_AGAIN_S = 1.0


def inject(target: FaultTarget, fault: Fault, actor: Host | None) -> None:
    """`actor`: who set it off; stands for the node that a fault does not name."""
    target.note(fault)
    match fault:
        case Crash(node, restart_after_s):
            _crash(target, _named(target, node, actor), restart_after_s)
        case PowerCut():
            _cut_power(target, fault)
        case Pause(seconds, node):
            _pause(target, _named(target, node, actor), seconds)
        case Cut(source, to, seconds):
            _cut(target, {(target.hosts[source].id, target.hosts[to].id)}, seconds)
        case Split(side, seconds, inbound):
            _cut(target, _between(target, side, inbound), seconds)
        case BreakEngine(works, kind, node):
            _named(target, node, actor).health.break_next(works, kind)
        case LoseDevices(seconds, node):
            _lose_devices(target, _named(target, node, actor), seconds)
        case Handicap(kind, node):
            target.hosts[node].health.impair(kind)
        case Sever(one, other):
            target.network.sever(target.hosts[one].id, target.hosts[other].id)
        case Lose(share):
            target.network.lose_share(share)
        case Poison(stage, partition, kind):
            target.poison_work(stage, partition, kind)
        case Join(node):
            if target.hosts[node].process is None:
                target.start(target.hosts[node])
        case Cancel(node):
            index = _named(target, node, actor).index
            for run in target.runs:
                target.after(0.0, partial(target.cancel, index, run))
        case Leave(node, seconds):
            target.after(0.0, lambda: target.deliver(target.hosts[node], Leaving()))
            target.after(seconds, lambda: target.kill(target.hosts[node]))
        case Drain(index, lasting_s):
            target.after(0.0, partial(target.drain, index, True))
            if lasting_s is not None:
                target.after(lasting_s, partial(_take_back, target, target.hosts[index]))


def _named(target: FaultTarget, node: int | None, actor: Host | None) -> Host:
    if node is not None:
        return target.hosts[node]
    assert actor is not None, "this fault names no node and nobody set it off"
    return actor


def _crash(target: FaultTarget, host: Host, restart_after_s: float | None) -> None:
    if host.process is None:
        return
    target.kill(host)
    if restart_after_s is not None:
        host.expect_back()
        target.after(restart_after_s, lambda: target.start(host) if host.process is None else None)


def _cut_power(target: FaultTarget, cut: PowerCut) -> None:
    for host in target.hosts:
        if host.process is None:
            continue
        off_s = Random(f"{target.seed}/{host.name}/{target.now}").uniform(0.0, cut.seconds)
        _crash(target, host, None if host.index in cut.stays_off else off_s)
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


def _between(target: FaultTarget, side: tuple[int, ...], inbound: bool) -> set[tuple[NodeId, NodeId]]:
    inside = [target.hosts[index].id for index in side]
    outside = [host.id for host in target.hosts if host.index not in side]
    pairs = {(there, here) for here in inside for there in outside}
    return pairs if inbound else pairs | {(here, there) for there, here in pairs}


def _cut(target: FaultTarget, pairs: set[tuple[NodeId, NodeId]], seconds: float) -> None:
    target.network.cut(pairs)
    target.after(seconds, lambda: target.network.join(pairs))
