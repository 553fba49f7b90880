"""What each fault does to a world."""

from __future__ import annotations

from functools import partial
from random import Random
from typing import TYPE_CHECKING

from ..events import Leaving
from ..names import NodeId
from .faults import (
    SLOW,
    BreakEngine,
    Cancel,
    Crash,
    Cut,
    Fault,
    Handicap,
    Join,
    Leave,
    Pause,
    Poison,
    PowerCut,
    Sever,
    Split,
)
from .model.host import Host

if TYPE_CHECKING:
    from .world import World


def strike(world: World, fault: Fault, actor: Host | None) -> None:
    """`actor`: who set it off; stands for the node that a fault does not name."""
    world.trace.add(world.now, "", "!", fault)
    match fault:
        case Crash(node, restart_after_s):
            _crash(world, _target(world, node, actor), restart_after_s)
        case PowerCut():
            _cut_power(world, fault)
        case Pause(seconds, node):
            _pause(world, _target(world, node, actor), seconds)
        case Cut(source, to, seconds):
            _cut(world, {(world.hosts[source].id, world.hosts[to].id)}, seconds)
        case Split(side, seconds, inbound):
            _cut(world, _between(world, side, inbound), seconds)
        case BreakEngine(works, kind, node):
            host = _target(world, node, actor)
            host.break_works, host.break_kind = works, kind
        case Handicap(kind, node):
            host = world.hosts[node]
            host.handicaps.add(kind)
            host.speed = 1.0 / SLOW if kind == "slow" else host.speed
        case Sever(one, other):
            pair = world.hosts[one].id, world.hosts[other].id
            world.network.severed |= {pair, pair[::-1]}
        case Poison(stage, partition, kind):
            world.poison[stage, f"p{partition}"] = kind
        case Join(node):
            if world.hosts[node].machine is None:
                world.start(world.hosts[node])
        case Cancel(node):
            index = _target(world, node, actor).index
            for run in world.engines:
                world.after(0.0, partial(world.cancel, index, run))
        case Leave(node, seconds):
            world.after(0.0, lambda: world.deliver(world.hosts[node], Leaving()))
            world.after(seconds, lambda: world.kill(world.hosts[node]))


def _target(world: World, node: int | None, actor: Host | None) -> Host:
    if node is not None:
        return world.hosts[node]
    assert actor is not None, "this fault names no node and nobody set it off"
    return actor


def _crash(world: World, host: Host, restart_after_s: float | None) -> None:
    if host.machine is None:
        return
    world.kill(host)
    if restart_after_s is not None:
        host.comes_back = True
        world.after(restart_after_s, lambda: world.start(host) if host.machine is None else None)


def _cut_power(world: World, cut: PowerCut) -> None:
    for host in world.hosts:
        if host.machine is None:
            continue
        off_s = Random(f"{world.seed}/{host.name}/{world.now}").uniform(0.0, cut.seconds)
        _crash(world, host, None if host.index in cut.stays_off else off_s)
        if host.index in cut.lost:
            host.disk.clear()
            host.saved.clear()
        elif host.index in cut.torn and host.saved:
            host.damaged.add(max(host.saved.values(), key=lambda saved: saved.header.step).header.id)


def _pause(world: World, host: Host, seconds: float) -> None:
    if not host.answers:
        return
    host.paused, life = True, host.machine
    world.after(seconds, lambda: world.wake(host) if host.paused and host.machine is life else None)


def _between(world: World, side: tuple[int, ...], inbound: bool) -> set[tuple[NodeId, NodeId]]:
    inside = [world.hosts[index].id for index in side]
    outside = [host.id for host in world.hosts if host.index not in side]
    pairs = {(there, here) for here in inside for there in outside}
    return pairs if inbound else pairs | {(here, there) for there, here in pairs}


def _cut(world: World, pairs: set[tuple[NodeId, NodeId]], seconds: float) -> None:
    world.network.cuts |= pairs
    world.after(seconds, lambda: world.network.cuts.difference_update(pairs))
