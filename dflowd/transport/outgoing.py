"""Messages as frames of the control lane: a turn's messages to a member in one, an answer over the link it came by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dflow_protocols.events import Report, Send, SendThrough, Unseal
from dflow_protocols.membership.machine import Membership
from dflow_protocols.names import NodeId
from dflow_protocols.runs.framing import addressed
from dflow_protocols.wire.client import Response
from dflow_protocols.wire.fields import MAX_SEALED
from dflow_protocols.wire.frame import Frame, encode_frame, parts_of
from dflow_protocols.wire.gossip import Knock, Relayed

from .aead import Envelopes
from .control import ControlLane, ReplyTo
from .keys import KeyPair


class Outgoing:
    """Any message may be lost; none of these waits. What no frame takes is a report."""

    def __init__(self, lane: ControlLane, keys: KeyPair, report: Callable[[Report], None]) -> None:
        self._lane, self._report = lane, report
        self._me, self._envelopes = keys.id, Envelopes(keys)

    def send(self, to: NodeId, frames: list[Frame]) -> None:
        """All that is due to a member in this turn: the newest heartbeats, and every message in order."""
        whole = Frame(frames[-1].delta, tuple(message for frame in frames for message in frame.messages))
        self._in_parts(whole, lambda part: self._lane.send(to, encode_frame(part.delta, part.messages)))

    def send_through(self, action: SendThrough) -> None:
        """A frame to a member without a link to this node, by way of a relay."""
        if self._lane.is_node(action.to):
            frame: Frame = action.message
            self._in_parts(frame, lambda part: self._pass(action, encode_frame(part.delta, part.messages)))

    def open(self, action: Unseal) -> bytes | None:
        """What a relay brought, if it is of who it says it is, and that is a node of the allow-list."""
        is_node = self._lane.is_node(action.origin)
        return self._envelopes.open(action.public_key, action.sealed) if is_node else None

    def tell(self, to: NodeId, message: Any) -> bool:
        """A message of the daemon's rooms, which no run stands behind. False if there is no way to that member."""
        return self._lane.send(to, encode_frame(None, (message,)))

    def tell_by_any_way(self, membership: Membership, to: NodeId, message: Any) -> bool:
        """The same, through others where there is no link to that member."""
        action = addressed(membership, to, Frame(None, (message,)))
        if isinstance(action, Send):
            return self.tell(to, message)
        self.send_through(action)
        return True

    def knock(self, peer: NodeId, message: Knock) -> bool:
        """Over the link that was dialled to `peer`, or none."""
        return self._lane.knock(peer, encode_frame(None, (message,)))

    def answer(self, link: ReplyTo, response: Response) -> None:
        self._lane.reply(link, encode_frame(None, (response,)))

    def _in_parts(self, frame: Frame, send: Callable[[Frame], object]) -> None:
        """Send a frame; where it is more than one takes, in as few as halving finds."""
        try:
            send(frame)
        except ValueError as error:
            parts = parts_of(frame)
            for part in parts:
                self._in_parts(part, send)
            if not parts:
                self._refuse(frame, error)

    def _pass(self, action: SendThrough, frame: bytes) -> None:
        """Seal a frame and hand it to the relay. Raises ValueError for one that no relay would take."""
        sealed = self._envelopes.close(action.public_key, frame)
        if len(sealed) > MAX_SEALED:
            raise ValueError(f"a sealed frame of {len(sealed)} bytes, more than {MAX_SEALED}")
        self.tell(action.relay, Relayed(self._me, action.to, 0, sealed))

    def _refuse(self, part: Frame, error: ValueError) -> None:
        (said,) = part.messages or (part.delta,)
        self._report(Report("wire.too_long", {"message": type(said).__name__, "error": str(error)}, "error"))
