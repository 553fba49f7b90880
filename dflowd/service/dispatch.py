"""Requests of clients, and of daemons that gather for one, to who answers them.

Any node may be asked. What only other members know is gathered from those alive, by a deadline, and the answer names
who is missing. A client may call methods, a node only shares: its parts of what other nodes gather.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeAlias

import msgpack

from dflow_protocols.events import Event, Reply, Report
from dflow_protocols.names import NodeId, RunId
from dflow_protocols.pipeline.schedule import Schedule
from dflow_protocols.wire.client import Request, Response

from ..observe.recorder import Recorder
from ..process.host import Host
from .request import EXIT_FAILED, Answer, Params, Refusal, fitting, typed, unpack

GATHER_S = 1.5  # for members' shares; a loaded one answers in tens of milliseconds
MAX_OPEN = 64  # requests of one key that wait for their answers
SHORTEST_PREFIX = 4  # hex digits of a run's id

Method: TypeAlias = Callable[[NodeId, Params, float], Awaitable[dict[str, Any]]]
"""Of a client's request: who asks, what it holds, and seconds within which to answer."""
Share: TypeAlias = Callable[[Params], dict[str, Any] | Awaitable[dict[str, Any]]]


class RunView(Protocol):
    @property
    def schedule(self) -> Schedule: ...
    def summary(self) -> dict[str, Any]: ...


class NodeView(Protocol):
    """What the service reads of the node; it changes nothing there."""

    @property
    def runs(self) -> Mapping[RunId, RunView]: ...
    @property
    def membership(self) -> Any: ...
    def withdrawn(self, member: NodeId) -> list[dict[str, str]]: ...
    def unfinished(self, now: float) -> dict[str, int]: ...
    def silent_s(self, now: float, member: NodeId) -> float | None: ...


@dataclass(frozen=True, slots=True)
class Myself:
    """What does not change while the daemon runs."""

    id: NodeId
    name: str
    version: str
    control: str
    bulk: str
    pid: int
    started_s: float  # since 1970


class Service:
    """Takes requests to whoever serves them; every method is for the loop's thread."""

    def __init__(
        self,
        host: Host,
        me: NodeId,
        node: NodeView,
        recorder: Recorder,
        tell: Callable[[NodeId, Request | Response], bool],
        written: Callable[[], Awaitable[None]],
        key_name: Callable[[NodeId], str],
    ) -> None:
        """`tell` sends a message to a member, through others where need be; False if there is no way to it. `written`
        waits for the disk. `key_name`: of a key, on the allow-list."""
        self.host, self.me, self.node, self.recorder = host, me, node, recorder
        self._methods: dict[str, Method] = {}
        self._own_shares: dict[str, Share] = {}
        self._loop, self.tell, self._written = host.loop, tell, written
        self._last_request = 0
        self._replies: dict[int, asyncio.Future[Reply]] = {}
        self._shares: dict[tuple[NodeId, int], asyncio.Future[dict[str, Any]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: dict[NodeId, int] = {}
        self._key_name = key_name

    def serve(self, methods: Mapping[str, Method], own_shares: Mapping[str, Share]) -> None:
        """Answer these from now on: methods to clients, this node's shares to those who gather."""
        self._methods |= methods
        self._own_shares |= own_shares

    # Messages -------------------------------------------------------------------------------------------------------

    def on_request(self, source: NodeId, role: str, request: Request, answer: Answer) -> None:
        """Answer one request, now or later."""
        if self._open.get(source, 0) >= MAX_OPEN:
            busy = Refusal(f"{MAX_OPEN} requests of this key are open already", "wait for their answers", EXIT_FAILED)
            answer(Response(request.id, False, fitting(busy.value)))
            return
        self._open[source] = self._open.get(source, 0) + 1
        task = self._loop.create_task(self._serve(source, role, request, answer))
        self._tasks.add(task)
        task.add_done_callback(partial(self._closed, source))

    def _closed(self, source: NodeId, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._open[source] -= 1
        if not self._open[source]:
            del self._open[source]

    def on_response(self, source: NodeId, response: Response) -> None:
        """A member's share arrived. One that nobody waits for any more is dropped."""
        waiting = self._shares.pop((source, response.id), None)
        if waiting is None or waiting.done():
            return
        try:
            value = unpack(response.value)
        except Refusal:
            return
        if response.ok:
            waiting.set_result(value)
        else:
            waiting.cancel()

    def on_reply(self, reply: Reply) -> None:
        waiting = self._replies.pop(reply.request, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(reply)

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, source: NodeId, role: str, request: Request, answer: Answer) -> None:
        ok = True
        try:
            params = unpack(request.params)
            value = await self._call(source, role, request.method, params, min(max(request.deadline_s, 0.1), 60.0))
        except Refusal as refusal:
            ok, value = False, refusal.value
        except Exception as error:
            self.recorder.report(
                Report(
                    "service.failed",
                    {"peer": source, "method": request.method, "error": f"{type(error).__name__}: {error}"},
                    "error",
                )
            )
            ok, value = False, Refusal("the daemon failed to answer", "its log says why", EXIT_FAILED).value
        await self._written()  # a run that is told to have ended has ended after a power cut too
        answer(Response(request.id, ok, fitting(value)))

    async def _call(self, source: NodeId, role: str, method: str, params: Params, deadline_s: float) -> dict[str, Any]:
        if role == "node" and method in self._own_shares:
            return await self._own_share(method, params)
        serve = self._methods.get(method)
        if role != "client" or serve is None:
            raise Refusal(f"no method `{method[:40]}` for a {role}", f"known: {', '.join(self._methods)}")
        return await serve(source, params, deadline_s)

    # For those who answer --------------------------------------------------------------------------------------------

    async def decide(self, request: int, event: Event, deadline_s: float, late: Refusal) -> Mapping[str, Any]:
        """Put a client's wish to the node and wait for its Reply; `late`: what to say if none comes in time."""
        waiting: asyncio.Future[Reply] = self._loop.create_future()
        self._replies[request] = waiting
        self.host.post(event)
        try:
            reply = await asyncio.wait_for(waiting, deadline_s)
        except TimeoutError:
            raise late from None
        finally:
            self._replies.pop(request, None)
        if not reply.ok:
            value = reply.value
            raise Refusal(str(value.get("what", "refused")), str(value.get("hint", "")), int(value.get("exit", 1)))
        return reply.value

    def audit(self, name: str, source: NodeId, **what: str) -> None:
        """Note who wanted what: the key that proved itself, whatever the request says."""
        self.recorder.report(Report(name, {**what, "by": self._key_name(source), "key": source}))

    def find(self, params: Params) -> RunId:
        """The run that `params` names, whole or by the first digits of its id."""
        text = typed(params, "run", str)
        runs = self.node.runs
        found = sorted(run for run in runs if run.startswith(text)) if len(text) >= SHORTEST_PREFIX else []
        if len(found) == 1:
            return found[0]
        if found:
            raise Refusal(f"`{text}` may be {len(found)} runs", f"give more digits: {', '.join(found[:4])}")
        hint = "list runs with `dflow ps`"
        if len(text) < SHORTEST_PREFIX:
            hint = f"give at least {SHORTEST_PREFIX} digits of a run's id; {hint}"
        raise Refusal(f"no run `{text[:40]}` is known here", hint, elsewhere=len(text) >= SHORTEST_PREFIX)

    async def gather(
        self, method: str, params: dict[str, Any], deadline_s: float, among: Collection[NodeId] | None = None
    ) -> tuple[dict[NodeId, dict[str, Any]], list[str]]:
        """This node's share and those of all living members, or of those `among` them, this node's first; and the
        names of who gave none in time, which is longer for this node's: a member that is busy may be asked again."""
        own = self._loop.create_task(self._own_share(method, params))
        alive = self.node.membership.alive()
        others = [node for node in alive if node != self.me and (among is None or node in among)]
        waiting: dict[asyncio.Future[dict[str, Any]], NodeId] = {own: self.me}
        until = self._loop.time() + deadline_s * 0.8
        wait_s = min(GATHER_S, deadline_s * 0.8)
        packed = msgpack.packb(params)
        ids = []
        for node in others:
            request = Request(self.next_request(), method, packed, wait_s)
            if self.tell(node, request):
                future: asyncio.Future[dict[str, Any]] = self._loop.create_future()
                self._shares[node, request.id] = future
                ids.append((node, request.id))
                waiting[future] = node
        try:
            await asyncio.wait(waiting, timeout=wait_s)
            await asyncio.wait([own], timeout=until - self._loop.time())
        finally:
            for number in ids:
                self._shares.pop(number, None)
            if not own.done():
                own.cancel()
        given = {future: node for future, node in waiting.items() if future.done() and not future.cancelled()}
        shares = {node: future.result() for future, node in given.items()}
        return shares, [self.name_of(node) for node in (self.me, *others) if node not in shares]

    async def ask_one(self, node: NodeId, method: str, params: dict[str, Any], deadline_s: float) -> dict[str, Any]:
        """The share of one member, which may be this node. Raises Refusal where it gives none."""
        if node == self.me:
            return await self._own_share(method, params)
        request = Request(self.next_request(), method, msgpack.packb(params), deadline_s * 0.8)
        future: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        if node in self.node.membership.alive() and self.tell(node, request):
            self._shares[node, request.id] = future
            await asyncio.wait([future], timeout=deadline_s * 0.8)
            self._shares.pop((node, request.id), None)
        if future.done() and not future.cancelled():
            return future.result()
        raise Refusal(f"{self.name_of(node)} does not answer", "ask again, or take another node", EXIT_FAILED)

    async def _own_share(self, method: str, params: Params) -> dict[str, Any]:
        share = self._own_shares[method](params)
        return share if isinstance(share, dict) else await share

    def name_of(self, node: NodeId) -> str:
        member = self.node.membership.members.get(node)
        return member.meta.name if member is not None and member.meta is not None else node[:8]

    def owner(self, submitter: NodeId) -> str:
        """Whose key submitted a run: its name on the allow-list, or the first digits of its id."""
        return self._key_name(submitter) or submitter[:8]

    def next_request(self) -> int:
        self._last_request += 1
        return self._last_request
