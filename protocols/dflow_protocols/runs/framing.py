"""Framing: all that is due to a member in one turn is one frame, over the link to it or through a relay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ..events import Action, Send, SendThrough, Unseal
from ..membership.machine import Membership
from ..membership.reach import MAX_HOPS
from ..names import NodeId
from ..wire.frame import Frame
from ..wire.gossip import Relayed
from ..wire.heartbeat import Delta


def framed(actions: Sequence[Action], membership: Membership, delta: Callable[[NodeId], Delta]) -> list[Action]:
    """The messages among these actions as frames, each with the `delta` of whom it goes to, after all other actions,
    which keep their order. Who is to hear of nothing but where this node stands, and knows, is sent nothing."""
    out: list[Action] = []
    routes = membership.routes
    letters: dict[tuple[NodeId, bool], list[Any]] = {}  # by member, and whether over its link
    for action in actions:
        if not isinstance(action, Send):
            out.append(action)
            continue
        messages = letters.setdefault((action.to, action.is_direct or action.to not in routes), [])
        if action.message is not None:
            messages.append(action.message)
    for (to, is_direct), messages in letters.items():
        told = delta(to)
        if not messages and not told.heartbeats:
            continue
        frame = Frame(told, tuple(messages))
        out.append(Send(to, frame) if is_direct else addressed(membership, to, frame))
    return out


def addressed(membership: Membership, to: NodeId, frame: Frame) -> Send | SendThrough:
    """A frame to a member, by whatever way leads there now."""
    relay = membership.routes.get(to)
    if relay is None:
        return Send(to, frame)
    meta = membership.members[to].meta
    assert meta is not None, "who cannot be sent to has no route"
    return SendThrough(relay, to, meta.public_key, frame)


def pass_on(membership: Membership, me: NodeId, source: NodeId, relayed: Relayed) -> list[Action]:
    """A frame between two members that cannot talk to each other came from `source`: it is for this node to open, or
    for the next hop. One that would go back, or comes from who is not known, is lost, as any frame may be."""
    origin, to = membership.members.get(relayed.origin), membership.members.get(relayed.to)
    if relayed.to == me:
        if origin is None or origin.meta is None or relayed.origin == me:
            return []
        return [Unseal(relayed.origin, origin.meta.public_key, source, relayed.sealed)]
    hop = membership.routes.get(relayed.to, relayed.to)
    if to is None or not to.is_up or relayed.hops >= MAX_HOPS or hop in (source, relayed.origin):
        return []
    return [Send(hop, replace(relayed, hops=relayed.hops + 1), is_direct=True)]
