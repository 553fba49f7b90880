"""What the daemon does for its node: each action to the room that performs it.

Each method is one action of the node, and decides nothing beyond where it goes.
"""

from __future__ import annotations

from dflow_protocols.events import (
    Action,
    Advanced,
    Broke,
    Dial,
    Discard,
    Drop,
    Event,
    Fetch,
    FindFiles,
    Finished,
    HangUp,
    Persist,
    Received,
    Reply,
    Report,
    SendThrough,
    Start,
    Stop,
    Trim,
    Unseal,
)
from dflow_protocols.names import NodeId
from dflow_protocols.wire.frame import Frame
from dflow_protocols.work import Failed

from .incoming import Incoming
from .process.host import Host
from .rooms import Rooms
from .state.checkpoints import discard
from .transport.resolver import Resolver, is_numeric


class Effects:
    """The daemon's rooms, as its driver uses them."""

    def __init__(self, host: Host, rooms: Rooms, incoming: Incoming) -> None:
        self._host, self._rooms, self._incoming = host, rooms, incoming
        self._resolver = Resolver(host, self._dial_at)

    def observe(self, event: Event) -> None:
        """See an event before the node does."""
        match event:
            case Received(source=source):
                self._incoming.handled(source)
            case Finished() | Broke():
                self._rooms.supervisor.acknowledge(event.call)
        self._rooms.recorder.observe(event)
        if isinstance(event, Broke) and event.failed.kind == "disk":
            self._rooms.disk.is_refused(event.failed.error)

    def send(self, to: NodeId, frames: list[Frame]) -> None:
        self._rooms.outgoing.send(to, frames)

    def send_through(self, action: SendThrough) -> None:
        self._rooms.outgoing.send_through(action)

    def unseal(self, action: Unseal) -> None:
        self._incoming.on_opened(action)

    def hang_up(self, action: HangUp) -> None:
        self._rooms.exchange.hang_up(action.node)
        self._rooms.dial_back.doubt(action.node)  # which lane of it does not answer is worth a word

    async def persist(self, action: Persist) -> None:
        await self._rooms.disk.write(action)

    def start(self, action: Start) -> None:
        self._rooms.recorder.start(action)
        try:
            self._rooms.supervisor.start(action)
        except OSError as error:  # such as no folder for the run: a call that is never answered would stand for ever
            what = f"it cannot be started here: {error.strerror}"
            self._host.post(Broke(action.call, Failed("engine", what, blame=action.task.stage)))

    def stop(self, action: Stop) -> None:
        self._rooms.recorder.stop(action.call)
        self._rooms.supervisor.stop(action.call)

    def trim(self, action: Trim) -> None:
        self._rooms.supervisor.trim(action.call, action.end)

    def fetch(self, action: Fetch) -> None:
        self._rooms.exchange.fetch(action)

    def drop(self, action: Drop) -> None:
        self._rooms.exchange.drop(action.run, action.shards)

    def find_files(self, action: FindFiles) -> None:
        self._rooms.supplies.find(action)

    def discard(self, action: Discard) -> None:
        self._rooms.disk.worker.submit(discard, self._rooms.state.path, action.run, action.step, action.version)

    def dial(self, action: Dial) -> None:
        if is_numeric(action.control):
            self._dial_at(action, action.control)
        else:
            self._resolver.add(action)
        if action.bulk and is_numeric(action.bulk):
            self._rooms.exchange.add_peer(action.node, action.bulk)
        self._rooms.dial_back.watch(action.node, action.control, action.bulk)

    def reply(self, action: Reply) -> None:
        self._rooms.service.on_reply(action)

    def advance(self, action: Advanced, cause: int | None = None) -> None:
        self._rooms.recorder.advance(action, cause)

    def report(self, report: Report, cause: int | None = None) -> None:
        self._rooms.recorder.report(report, cause)

    def note(self, cause: int, now: float, events: list[Event], actions: list[Action]) -> None:
        """A turn is over."""
        self._rooms.story.take(cause, now, events, actions)

    def close(self) -> None:
        self._resolver.close()

    def _dial_at(self, action: Dial, address: str) -> None:
        self._rooms.control.dial(action.node, action.public_key, address)
