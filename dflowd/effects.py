"""What the daemon does for its node: frames out and in, disk, slots, transfers.

Each method is one action of the node, or one thing that a lane heard, and decides nothing beyond where it goes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from dflow_protocols.events import (
    Broke,
    Dial,
    Discard,
    Drop,
    Event,
    Fetch,
    Finished,
    Persist,
    Received,
    Reply,
    Report,
    Start,
    Stop,
    Trim,
)
from dflow_protocols.names import NodeId
from dflow_protocols.wire.bulk import BULK_MESSAGES
from dflow_protocols.wire.client import Request, Response
from dflow_protocols.wire.fields import WireError
from dflow_protocols.wire.frame import Frame, decode_frame, encode_frame
from dflow_protocols.wire.gossip import Knock, Knocked
from dflow_protocols.work import Failed

from .observe.recorder import Recorder
from .service.dispatch import Service
from .shards.exchange import Exchange
from .slots.supervisor import Supervisor
from .state.checkpoints import discard
from .state.directory import StateDirectory
from .state.disk import Disk
from .transport.control import ControlLane, Link
from .transport.reach import TOKEN_BYTES, DialBack
from .transport.resolver import NamedPeers, is_numeric

MAX_WAITING = 256  # frames of one member that wait to be handled; an honest one has a few
MAX_WAITING_BYTES = 16 << 20
MAX_REQUESTS = 16  # of one frame; a client sends one


class RoomHands:
    """The driver's hands: the daemon's rooms, wired. Rooms are set once all of them exist."""

    control: ControlLane
    dial_back: DialBack
    exchange: Exchange
    supervisor: Supervisor
    service: Service

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        state: StateDirectory,
        disk: Disk,
        recorder: Recorder,
        post: Callable[[Event], None],
    ) -> None:
        self._loop, self._state, self._disk, self._recorder, self._post = loop, state, disk, recorder, post
        self._named = NamedPeers(loop, self._dial_at, self.report)
        self._waiting: dict[NodeId, deque[int]] = {}  # bytes of each member's frames that were not handled yet

    # Actions --------------------------------------------------------------------------------------------------------

    def send(self, to: NodeId, frames: list[Frame]) -> None:
        """All that is due to a member in this turn: the newest standings, and every message in order."""
        messages = [message for frame in frames for message in frame.messages]
        try:
            self.control.send(to, encode_frame(frames[-1].standings, messages))
        except ValueError:  # more than one frame takes
            for message in messages:
                self._send_alone(to, message)

    def send_own(self, to: NodeId, message: Any) -> bool:
        """A message of the daemon's rooms, which no run stands behind. False if there is no way to that member."""
        return self.control.send(to, encode_frame((), (message,)))

    async def persist(self, action: Persist) -> None:
        await self._disk.write(action)

    def start(self, action: Start) -> None:
        self._recorder.start(action)
        try:
            self.supervisor.start(action.call, action.run, action.task, action.work, action.fresh)
        except OSError as error:  # such as no folder for the run: a call that is never answered would stand for ever
            what = f"it cannot be started here: {error.strerror}"
            self._post(Broke(action.call, Failed("engine", what, blame=action.task.stage)))

    def stop(self, action: Stop) -> None:
        self._recorder.stop(action.call)
        self.supervisor.stop(action.call)

    def trim(self, action: Trim) -> None:
        self.supervisor.trim(action.call, action.end)

    def fetch(self, action: Fetch) -> None:
        self.exchange.fetch(action)

    def drop(self, action: Drop) -> None:
        self.exchange.drop(action.run, action.shards)

    def discard(self, action: Discard) -> None:
        self._disk.worker.submit(discard, self._state.path, action.run, action.step, action.version)

    def dial(self, action: Dial) -> None:
        if is_numeric(action.control):
            self._dial_at(action, action.control)
        else:
            self._named.add(action)
        if action.bulk and is_numeric(action.bulk):
            self.exchange.add_peer(action.node, action.bulk)
        self.dial_back.watch(action.node, action.control, action.bulk)

    def _dial_at(self, action: Dial, address: str) -> None:
        self.control.dial(action.node, action.public_key, address)

    def reply(self, action: Reply) -> None:
        self.service.on_reply(action)

    def report(self, report: Report) -> None:
        self._recorder.report(report)

    def observe(self, event: Event) -> None:
        if isinstance(event, Received):
            waiting = self._waiting.get(event.source)
            if waiting:
                waiting.popleft()
        if isinstance(event, Finished | Broke):
            self.supervisor.told(event.call)
        self._recorder.observe(event)
        if isinstance(event, Broke) and event.failed.kind == "disk":
            self._disk.is_refused(event.failed.error)

    # What lanes hear ------------------------------------------------------------------------------------------------

    def on_frame(self, source: NodeId, role: str, data: bytes, link: Link) -> None:
        """A frame of the control lane. Whatever its bytes, nothing is raised."""
        try:
            frame = decode_frame(data)
        except WireError as error:
            self.report(Report("wire.refused", {"peer": source, "error": str(error)}, "warning"))
            return
        rest: list[Any] = []
        if sum(isinstance(message, Request) for message in frame.messages) > MAX_REQUESTS:
            self.report(Report("wire.refused", {"peer": source, "error": "too many requests in one frame"}, "warning"))
            return
        for message in frame.messages:
            if isinstance(message, Request):
                self.service.on_request(source, role, message, lambda answer: self._answer(link, answer))
            elif role != "node":
                self.report(Report("wire.refused", {"peer": source, "error": "a client may only ask"}, "warning"))
            elif isinstance(message, Response):
                self.service.on_response(source, message)
            elif isinstance(message, BULK_MESSAGES):
                self.exchange.on_message(source, message)
            elif isinstance(message, Knock):
                self.send_own(source, Knocked(message.token[:TOKEN_BYTES]))
            elif isinstance(message, Knocked):
                self.dial_back.knocked(source, message.token)
            else:
                rest.append(message)
        if role == "node" and (rest or frame.standings or not frame.messages):
            self._post_frame(source, Frame(frame.standings, tuple(rest)), len(data))

    def _post_frame(self, source: NodeId, frame: Frame, nbytes: int) -> None:
        """To the node, unless more of this member waits already than its share: any message may be lost, and one that
        says more than can be heard must not push out the others."""
        waiting = self._waiting.setdefault(source, deque())
        if len(waiting) >= MAX_WAITING or sum(waiting) > MAX_WAITING_BYTES:
            why = f"{len(waiting)} frames of it wait to be handled"
            self.report(Report("transport.flooded", {"peer": source, "why": why}, "warning"))
            return
        waiting.append(nbytes)
        self._post(Received(source, frame))

    def knock(self, peer: NodeId, message: Knock) -> bool:
        return self.control.knock(peer, encode_frame((), (message,)))

    def on_revoked(self, peer: NodeId) -> None:
        self.exchange.remove_peer(peer)

    def close(self) -> None:
        self._named.close()

    def _answer(self, link: Link, response: Response) -> None:
        self.control.reply(link, encode_frame((), (response,)))

    def _send_alone(self, to: NodeId, message: Any) -> None:
        try:
            self.control.send(to, encode_frame((), (message,)))
        except ValueError as error:
            self.report(Report("wire.too_long", {"message": type(message).__name__, "error": str(error)}, "error"))
