"""What a daemon answers to clients, and to daemons that gather for one.

Any node may be asked. What only other members know is gathered from those alive, by a deadline, and the answer names
who is missing. A client may call the methods of METHODS, a node only the shares of them that other nodes gather.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import msgpack

from dflow_protocols.machine import CancelRequested, Event, Reply, Report, Submitted
from dflow_protocols.names import NodeId, RunId
from dflow_protocols.pipeline import Pipeline, SpecError
from dflow_protocols.wire.client import Request, Response

from .observe.metrics import merge_rows, own_report
from .observe.recorder import Recorder
from .transport.keys import key_text

GATHER_S = 1.5  # for members' shares; a loaded one answers in tens of milliseconds
WAIT_CAP_S = 20.0  # a `wait` is asked again after this, so that a client notices a daemon that went silent
SHORTEST_PREFIX = 4  # hex digits of a run's id
MOST_ROWS = 100_000
MOST_ANSWER_BYTES = (4 << 20) - (1 << 13)  # a frame, less its envelope
FINAL_STATES = ("done", "failed", "cancelled")
EXIT_FAILED, EXIT_INPUT = 1, 2

Params = Mapping[str, Any]
Answer = Callable[[Response], None]


class Refusal(Exception):
    """A request that cannot be answered: what, where to look, and the exit code that it means to a script."""

    def __init__(self, what: str, hint: str, exit_code: int = EXIT_INPUT) -> None:
        super().__init__(what)
        self.value = {"what": what, "hint": hint, "exit": exit_code}


class RunView(Protocol):
    def summary(self) -> dict[str, Any]: ...


class NodeView(Protocol):
    """What the service reads of the node; it changes nothing there."""

    @property
    def runs(self) -> Mapping[RunId, RunView]: ...
    @property
    def membership(self) -> Any: ...


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
    slots: int


class Service:
    """Answers requests; every method is for the loop's thread."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        me: Myself,
        node: NodeView,
        recorder: Recorder,
        post: Callable[[Event], None],
        ask: Callable[[NodeId, Request], bool],
        engines: Callable[[], dict[str, Any]],
        memory: Callable[[], dict[str, Any]],
        traffic: Callable[[], dict[str, Any]],
        wall_clock: Callable[[], float],
        written: Callable[[], Awaitable[None]],
    ) -> None:
        """`ask` sends a request to a member; False if there is no way to it. `written` waits for the disk."""
        self._loop, self._me, self._node, self._recorder = loop, me, node, recorder
        self._post, self._ask = post, ask
        self._engines, self._memory, self._traffic = engines, memory, traffic
        self._wall_clock, self._written = wall_clock, written
        self._last_request = 0
        self._replies: dict[int, asyncio.Future[Reply]] = {}
        self._shares: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._moved = loop.create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        self._methods: dict[str, Callable[[NodeId, Params, float], Awaitable[dict[str, Any]]]] = {
            "status": self._status,
            "nodes": self._nodes,
            "submit": self._submit,
            "cancel": self._cancel,
            "runs": self._runs,
            "run": self._run,
            "wait": self._wait,
            "tasks": self._gather_tasks,
            "metrics": self._gather_metrics,
            "samples": self._gather_samples,
            "events": self._events,
        }
        self._own_shares: dict[str, Callable[[Params], dict[str, Any]]] = {
            "share.tasks": self._own_tasks,
            "share.metrics": self._own_metrics,
            "share.samples": self._own_samples,
            "share.end": self._own_end,
        }

    # Doors ----------------------------------------------------------------------------------------------------------

    def on_request(self, source: NodeId, role: str, request: Request, answer: Answer) -> None:
        """Answer one request, now or later."""
        task = self._loop.create_task(self._serve(source, role, request, answer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def on_response(self, source: NodeId, response: Response) -> None:
        """A member's share arrived. One that nobody waits for any more is dropped."""
        waiting = self._shares.pop(response.id, None)
        if waiting is None or waiting.done():
            return
        try:
            value = _unpack(response.value)
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

    def notice(self) -> None:
        """Some run moved: whoever waits looks again."""
        if not self._moved.done():
            self._moved.set_result(None)

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, source: NodeId, role: str, request: Request, answer: Answer) -> None:
        ok = True
        try:
            params = _unpack(request.params)
            value = await self._call(source, role, request.method, params, min(max(request.deadline_s, 0.1), 60.0))
        except Refusal as refusal:
            ok, value = False, refusal.value
        except Exception as error:
            self._recorder.report(
                Report(
                    "service.failed",
                    {"peer": source, "method": request.method, "error": f"{type(error).__name__}: {error}"},
                    "error",
                )
            )
            ok, value = False, Refusal("the daemon failed to answer", "its log says why", EXIT_FAILED).value
        await self._written()  # a run that is told to have ended has ended after a power cut too
        answer(Response(request.id, ok, _fitting(value)))

    async def _call(self, source: NodeId, role: str, method: str, params: Params, deadline_s: float) -> dict[str, Any]:
        if role == "node" and method in self._own_shares:
            return self._own_shares[method](params)
        serve = self._methods.get(method)
        if role != "client" or serve is None:
            raise Refusal(f"no method `{method[:40]}` for a {role}", f"known: {', '.join(self._methods)}")
        return await serve(source, params, deadline_s)

    # About this node and the mesh -----------------------------------------------------------------------------------

    async def _status(self, source: NodeId, params: Params, deadline_s: float) -> dict[str, Any]:
        me = self._me
        return {
            "name": me.name,
            "id": me.id,
            "version": me.version,
            "control": me.control,
            "bulk": me.bulk,
            "pid": me.pid,
            "started_s": me.started_s,
            "members": len(self._node.membership.alive()),
            "engine": self._engines(),
            "memory": self._memory(),
            "traffic": self._traffic(),
        }

    async def _nodes(self, source: NodeId, params: Params, deadline_s: float) -> dict[str, Any]:
        nodes = []
        for node, member in sorted(self._node.membership.members.items()):
            meta = member.meta
            known = meta is not None
            nodes.append(
                {
                    "id": node,
                    "name": meta.name if known else "",
                    "state": member.state,
                    "incarnation": member.incarnation,
                    "control": meta.control if known else "",
                    "bulk": meta.bulk if known else "",
                    "key": key_text(meta.public_key) if known else "",
                    "device": meta.device if known else "",
                    "slots": meta.slots if known else 0,
                }
            )
        return {"nodes": nodes, "missing": []}

    async def _events(self, source: NodeId, params: Params, deadline_s: float) -> dict[str, Any]:
        run = self._find(params) if params.get("run") else None
        return {"events": self._recorder.log.recent(run, _limit(params, 200))}

    # Runs -----------------------------------------------------------------------------------------------------------

    async def _submit(self, source: NodeId, params: Params, deadline_s: float) -> dict[str, Any]:
        spec, base, nonce = _typed(params, "spec", bytes), _typed(params, "base", str), _typed(params, "nonce", str)
        try:
            Pipeline.from_canonical(spec)
        except (SpecError, ValueError, KeyError, TypeError) as error:
            raise Refusal(f"not a pipeline: {error}", "submit it with a `dflow` of the daemons' version") from None
        request = self._next_request()
        reply = await self._decide(request, Submitted(request, spec, base, source, nonce), deadline_s)
        return {"run": str(reply["run"])}

    async def _cancel(self, source: NodeId, params: Params, deadline_s: float) -> dict[str, Any]:
        run = self._find(params)
        request = self._next_request()
        reply = await self._decide(request, CancelRequested(request, run), deadline_s)
        return {"run": run, "state": str(reply.get("state", self._node.runs[run].summary()["state"]))}

    async def _decide(self, request: int, event: Event, deadline_s: float) -> Mapping[str, Any]:
        """Put a client's wish to the node and wait for its Reply."""
        waiting: asyncio.Future[Reply] = self._loop.create_future()
        self._replies[request] = waiting
        self._post(event)
        try:
            reply = await asyncio.wait_for(waiting, deadline_s)
        except TimeoutError:
            what = "no second node has it on disk yet"
            raise Refusal(what, "it goes on by itself if it is kept; see `dflow ps`", EXIT_FAILED) from None
        finally:
            self._replies.pop(request, None)
        if not reply.ok:
            value = reply.value
            raise Refusal(str(value.get("what", "refused")), str(value.get("hint", "")), int(value.get("exit", 1)))
        return reply.value

    async def _runs(self, source: NodeId, params: Params, deadline_s: float) -> dict[str, Any]:
        rows = []
        for run, view in self._node.runs.items():
            began_s, _ = self._recorder.metrics.times(run)
            rows.append({**_without_spec(view.summary()), "submitted_s": began_s})
        return {"runs": sorted(rows, key=lambda row: (row["submitted_s"] or 0.0, row["run"]))}

    async def _run(self, source: NodeId, params: Params, deadline_s: float) -> dict[str, Any]:
        run = self._find(params)
        summary = dict(self._node.runs[run].summary())
        shares, missing = await self._gather("share.end", {"run": run}, deadline_s)
        began = [share["began_s"] for share in shares.values() if share["began_s"] is not None]
        ended = [share["ended_s"] for share in shares.values() if share["ended_s"] is not None]
        until_s = min(ended) if ended and summary["state"] in FINAL_STATES else self._wall_clock()
        newest = max((share["step"] for share in shares.values() if share["folder"]), default=0)
        summary["nodes"] = len(self._node.membership.alive())
        summary["submitted_s"] = min(began, default=None)
        summary["wall_s"] = max(0.0, until_s - min(began)) if began else 0.0
        summary["checkpoint"] = {
            self._name(node): share["folder"]
            for node, share in shares.items()
            if share["folder"] and share["step"] == newest
        }
        summary["missing"] = missing
        return summary

    async def _wait(self, source: NodeId, params: Params, deadline_s: float) -> dict[str, Any]:
        """Answers when the run ended or went past `known_step`, else after `timeout_s` with how it stands."""
        run = self._find(params)
        known_step = int(params.get("known_step", -1))
        until = self._loop.time() + min(float(params.get("timeout_s", WAIT_CAP_S)), WAIT_CAP_S)
        while True:
            summary = self._node.runs[run].summary()
            left_s = until - self._loop.time()
            if summary["state"] in FINAL_STATES or summary["step"] > known_step or left_s <= 0:
                return await self._run(source, {"run": run}, deadline_s)
            if self._moved.done():
                self._moved = self._loop.create_future()
            await asyncio.wait([self._moved], timeout=min(left_s, 1.0))

    def _find(self, params: Params) -> RunId:
        """The run that `params` names, whole or by the first digits of its id."""
        text = _typed(params, "run", str)
        runs = self._node.runs
        found = sorted(run for run in runs if run.startswith(text)) if len(text) >= SHORTEST_PREFIX else []
        if len(found) == 1:
            return found[0]
        if found:
            raise Refusal(f"`{text}` may be {len(found)} runs", f"give more digits: {', '.join(found[:4])}")
        hint = "list runs with `dflow ps`"
        if len(text) < SHORTEST_PREFIX:
            hint = f"give at least {SHORTEST_PREFIX} digits of a run's id; {hint}"
        raise Refusal(f"no run `{text[:40]}` is known here", hint)

    # What all members know together ---------------------------------------------------------------------------------

    async def _gather_tasks(self, source: NodeId, params: Params, deadline_s: float) -> dict[str, Any]:
        asked = {"run": self._find(params), "step": params.get("step"), "limit": _limit(params, MOST_ROWS)}
        shares, missing = await self._gather("share.tasks", asked, deadline_s)
        tasks = [
            {**row, "node": self._name(node), "node_id": node}
            for node, share in shares.items()
            for row in share["tasks"]
        ]
        tasks.sort(key=lambda row: (row["started"], row["id"]))
        return {"tasks": tasks[-_limit(params, MOST_ROWS) :], "missing": missing}

    async def _gather_metrics(self, source: NodeId, params: Params, deadline_s: float) -> dict[str, Any]:
        asked = {"run": self._find(params), "since_step": int(params.get("since_step") or 0)}
        shares, missing = await self._gather("share.metrics", asked, deadline_s)
        return {"rows": merge_rows(list(shares.values())), "missing": missing}

    async def _gather_samples(self, source: NodeId, params: Params, deadline_s: float) -> dict[str, Any]:
        limit = _limit(params, 100)
        shares, missing = await self._gather("share.samples", {"run": self._find(params), "limit": limit}, deadline_s)
        samples = [
            {**sample, "node": self._name(node)} for node, share in shares.items() for sample in share["samples"]
        ]
        samples.sort(key=lambda sample: int(sample["step"]))
        return {"samples": samples[-limit:], "missing": missing}

    async def _gather(
        self, method: str, params: dict[str, Any], deadline_s: float
    ) -> tuple[dict[NodeId, dict[str, Any]], list[str]]:
        """This node's share and those of all living members, this node's first; and the names of who gave none."""
        shares = {self._me.id: self._own_shares[method](params)}
        others = [node for node in self._node.membership.alive() if node != self._me.id]
        waiting: dict[asyncio.Future[dict[str, Any]], NodeId] = {}
        wait_s = min(GATHER_S, deadline_s * 0.8)
        packed = msgpack.packb(params)
        ids = []
        for node in others:
            request = Request(self._next_request(), method, packed, wait_s)
            if self._ask(node, request):
                future: asyncio.Future[dict[str, Any]] = self._loop.create_future()
                self._shares[request.id] = future
                ids.append(request.id)
                waiting[future] = node
        if waiting:
            await asyncio.wait(waiting, timeout=wait_s)
        for number in ids:
            self._shares.pop(number, None)
        for future, node in waiting.items():
            if future.done() and not future.cancelled():
                shares[node] = future.result()
        return shares, [self._name(node) for node in others if node not in shares]

    def _own_tasks(self, params: Params) -> dict[str, Any]:
        step = params.get("step")
        limit = _limit(params, MOST_ROWS)
        return {"tasks": self._recorder.timeline.rows(RunId(params["run"]), step, limit)}

    def _own_metrics(self, params: Params) -> dict[str, Any]:
        run, since = RunId(params["run"]), int(params["since_step"])
        rows = self._recorder.metrics.rows(run, since)
        return own_report(rows, self._recorder.timeline.costs(run, since - 1), self._me.slots)

    def _own_samples(self, params: Params) -> dict[str, Any]:
        return {"samples": self._recorder.metrics.samples(RunId(params["run"]), _limit(params, 100))}

    def _own_end(self, params: Params) -> dict[str, Any]:
        """The newest checkpoint here, and this node's view of when the run was."""
        run = RunId(params["run"])
        step, folder = self._recorder.metrics.checkpoint(run)
        began_s, ended_s = self._recorder.metrics.times(run)
        return {"step": step, "folder": folder, "began_s": began_s, "ended_s": ended_s}

    def _name(self, node: NodeId) -> str:
        member = self._node.membership.members.get(node)
        return member.meta.name if member is not None and member.meta is not None else node[:8]

    def _next_request(self) -> int:
        self._last_request += 1
        return self._last_request


def _unpack(data: bytes) -> dict[str, Any]:
    try:
        value = msgpack.unpackb(data) if data else {}
    except (ValueError, msgpack.UnpackException):
        value = None
    if not isinstance(value, dict):
        raise Refusal("the parameters are no map", "ask with a `dflow` of the daemon's version")
    return value


def _fitting(value: dict[str, Any]) -> bytes:
    """The answer as msgpack, short enough for a frame: of a list that is too long the latest half stays, and so on."""
    packed: bytes = msgpack.packb(value)
    while len(packed) > MOST_ANSWER_BYTES:
        name = max((name for name in value if isinstance(value[name], list)), key=lambda name: len(value[name]))
        rows = value[name]
        value = {**value, name: rows[len(rows) - len(rows) // 2 :], "cut": True}
        packed = msgpack.packb(value)
    return packed


def _typed(params: Params, name: str, kind: type) -> Any:
    value = params.get(name)
    if not isinstance(value, kind):
        raise Refusal(f"parameter `{name}` must be a {kind.__name__}", "ask with a `dflow` of the daemon's version")
    return value


def _limit(params: Params, default: int) -> int:
    value = params.get("limit")
    return min(value, MOST_ROWS) if isinstance(value, int) and value > 0 else default


def _without_spec(summary: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in summary.items() if key != "spec"}
