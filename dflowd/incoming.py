"""What the control lane hears: each message of a frame to the room, or the node, that it is for."""

from __future__ import annotations

from collections import deque
from typing import Any

from dflow_protocols.events import Received, Report, Unseal
from dflow_protocols.names import NodeId
from dflow_protocols.wire.bulk import BULK_MESSAGES
from dflow_protocols.wire.client import CLIENT_MESSAGES, Request, Response
from dflow_protocols.wire.fields import WireError
from dflow_protocols.wire.frame import Frame, decode_frame
from dflow_protocols.wire.gossip import GOSSIP_MESSAGES, Knock, Knocked
from dflow_protocols.wire.steps import STEP_MESSAGES

from .process.host import Host
from .rooms import Rooms
from .transport.control import ReplyTo
from .transport.reach import TOKEN_BYTES

MAX_WAITING = 256  # frames of one member that wait to be handled; an honest one has a few
MAX_WAITING_BYTES = 16 << 20
MAX_REQUESTS = 16  # of one frame; a client sends one
RELAYED_MESSAGES = (*GOSSIP_MESSAGES, *STEP_MESSAGES, *CLIENT_MESSAGES)  # lanes and sessions belong to links


class Incoming:
    """The control lane's guest. Decides nothing beyond where a message goes, and how much of one member may wait."""

    def __init__(self, host: Host, rooms: Rooms) -> None:
        self._host, self._rooms = host, rooms
        self._waiting: dict[NodeId, deque[int]] = {}  # bytes of each member's frames that were not handled yet

    def on_frame(self, source: NodeId, role: str, data: bytes, link: ReplyTo) -> None:
        """Whatever its bytes, nothing is raised."""
        try:
            frame = decode_frame(data)
        except WireError as error:
            self._refuse(source, str(error))
            return
        if sum(isinstance(message, Request) for message in frame.messages) > MAX_REQUESTS:
            self._refuse(source, "too many requests in one frame")
            return
        rest: list[Any] = []
        for message in frame.messages:
            if isinstance(message, Request):
                self._rooms.service.on_request(
                    source, role, message, lambda response: self._rooms.outgoing.answer(link, response)
                )
            elif role != "node":
                self._refuse(source, "a client may only ask")
            elif not self._is_taken_by_room(source, message):
                rest.append(message)
        if role == "node" and (rest or frame.delta is not None or not frame.messages):
            self._post(source, Frame(frame.delta, tuple(rest)), len(data))

    def on_opened(self, action: Unseal) -> None:
        """A frame that a relay brought: for the node, or of who gathers answers for a client. Who closed it is to blame
        for what it says, and the relay for what nobody closed."""
        origin = action.origin
        if not self._rooms.control.is_node(origin):
            self._refuse(origin, "its key is not on the allow-list as a node's")
            return
        data = self._rooms.outgoing.open(action)
        if data is None:
            self._refuse(action.relay, f"what it passed on is no frame of {origin}")
            return
        try:
            frame = decode_frame(data)
        except WireError as error:
            self._refuse(origin, str(error))
            return
        asked = [message for message in frame.messages if isinstance(message, CLIENT_MESSAGES)]
        if len(asked) > MAX_REQUESTS or not all(isinstance(message, RELAYED_MESSAGES) for message in frame.messages):
            self._refuse(origin, "what does not go through relays")
            return
        for message in asked:
            if isinstance(message, Request):
                self._rooms.service.on_request(
                    origin, "node", message, lambda response: self._rooms.service.tell(origin, response)
                )
            else:
                self._rooms.service.on_response(origin, message)
        rest = tuple(message for message in frame.messages if message not in asked)
        if rest or not asked:
            self._post(origin, Frame(frame.delta, rest), len(action.sealed), action.relay)

    def on_revoked(self, peer: NodeId) -> None:
        self._rooms.exchange.remove_peer(peer)

    def handled(self, source: NodeId) -> None:
        """The node takes the member's oldest frame now."""
        waiting = self._waiting.get(source)
        if waiting:
            waiting.popleft()

    def _is_taken_by_room(self, source: NodeId, message: Any) -> bool:
        """False for what the node handles."""
        if isinstance(message, Response):
            self._rooms.service.on_response(source, message)
        elif isinstance(message, BULK_MESSAGES):
            self._rooms.exchange.on_message(source, message)
        elif isinstance(message, Knock):
            self._rooms.outgoing.tell(source, Knocked(message.token[:TOKEN_BYTES]))
        elif isinstance(message, Knocked):
            self._rooms.dial_back.knocked(source, message.token)
        else:
            return False
        return True

    def _post(self, source: NodeId, frame: Frame, nbytes: int, relay: NodeId | None = None) -> None:
        """To the node, unless more of this member waits already than its share: any message may be lost, and one that
        says more than can be heard must not push out the others."""
        waiting = self._waiting.setdefault(source, deque())
        if len(waiting) >= MAX_WAITING or sum(waiting) > MAX_WAITING_BYTES:
            why = f"{len(waiting)} frames of it wait to be handled"
            self._host.report(Report("transport.flooded", {"peer": source, "why": why}, "warning"))
            return
        waiting.append(nbytes)
        self._host.post(Received(source, frame, relay))

    def _refuse(self, source: NodeId, error: str) -> None:
        self._host.report(Report("wire.refused", {"peer": source, "error": error}, "warning"))
