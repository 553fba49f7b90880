"""Answers about this node and the mesh, and taking a node out of work."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from dflow_protocols.claiming.ability import has_gpus
from dflow_protocols.events import DrainRequested
from dflow_protocols.names import NodeId
from dflow_protocols.wire.keys import key_text

from .dispatch import SHORTEST_PREFIX, Myself, Service
from .request import EXIT_FAILED, Params, Refusal, typed
from .runs import FINAL_STATES
from .standing import StandingProblems

LAST_STEPS = 20  # of each active run, by which a node's share of the work is told
PATIENCE_S = 5.0  # for the own disk, when it is drained; a turn of the node takes a millisecond

Told = Callable[[], dict[str, Any]]


class MeshAnswers:
    """`status`, `nodes`."""

    def __init__(self, service: Service, me: Myself, engines: Told, memory: Told, traffic: Told, gpus: Told) -> None:
        self._service, self._me, self._node, self._standing = service, me, service.node, StandingProblems(service)
        self._engines, self._memory, self._traffic, self._gpus = engines, memory, traffic, gpus
        service.serve(
            {"status": self._status, "nodes": self._nodes},
            {"share.gpus": lambda params: self._gpus(), "share.work": self._own_work},
        )

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
            **self._gpus(),
            "problems": self._standing.rows(),
        }

    async def _nodes(self, source: NodeId, params: Params, deadline_s: float) -> dict[str, Any]:
        """All members as this node believes them to be. With `detail` the living are asked what they do: `work`, and
        the node's `share` of what the last steps cost all slots."""
        work, silent = await self._service.gather("share.work", {}, deadline_s) if params.get("detail") else ({}, [])
        busy_s = {node: float(told["busy_s"]) for node, told in work.items()}
        all_s = sum(busy_s.values())
        members = self._node.membership.members.items()
        with_gpus = {node for node, member in members if member.meta is not None and has_gpus(member.meta)}
        told, missing = await self._service.gather("share.gpus", {}, deadline_s, with_gpus) if with_gpus else ({}, [])
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
                    "is_drained": member.is_up and member.claim.drained,
                    "seen_s": self._node.silent_s(self._service.host.clock(), node),
                    "work": work.get(node),
                    "share": busy_s[node] / all_s if node in busy_s and all_s else None,
                    "roles": list(meta.roles) if known else [],
                    "withdrawn": self._node.withdrawn(node),
                    "facts": dict(meta.facts) if known else {},
                    "apart": list(member.claim.apart) if member.is_up else [],
                    "unreached": sorted(self._node.membership.reach.unreached.get(node, ())) if member.is_up else [],
                    **told.get(node, {"gpus": [], "drained": []}),
                }
            )
        return {"nodes": nodes, "missing": sorted({*missing, *silent})}

    def _own_work(self, params: Params) -> dict[str, Any]:
        """What is left to do, what runs, what the last steps cost, and how loaded the host is. Memory in bytes."""
        host, timeline, memory = self._service.host, self._service.recorder.timeline, self._memory()
        told = {run: view.summary() for run, view in self._node.runs.items()}
        active = [run for run, summary in told.items() if summary["state"] not in FINAL_STATES] or list(told)[-1:]
        return {
            **self._node.unfinished(host.clock()),
            "running": timeline.doing(host.wall_clock()),
            "busy_s": sum(timeline.busy_s(run, int(told[run]["step"]) - LAST_STEPS) for run in active),
            "load": os.getloadavg()[0],
            "cores": len(os.sched_getaffinity(0)),
            "memory": {
                **memory["host"],
                "resident": memory["resident_bytes"],
                "shards": memory["shards"]["used_bytes"],
                "shards_limit": memory["shards"]["limit_bytes"],
            },
        }


class DrainAnswers:
    """`drain`: of a node by its name or the first digits of its id. `undo`: it takes work again."""

    def __init__(self, service: Service) -> None:
        self._service, self._host = service, service.host
        service.serve({"drain": self._drain}, {"share.drain": self._own})

    async def _drain(self, source: NodeId, params: Params, deadline_s: float) -> dict[str, Any]:
        """`name` and `id` of the node, and `tasks`, `shards`, `nbytes` as `Node.unfinished` has them."""
        node, undo = self._find(typed(params, "name", str)), params.get("undo") is True
        answer = await self._service.ask_one(node, "share.drain", {"undo": undo}, deadline_s)
        if answer.get("what"):
            raise Refusal(str(answer["what"]), str(answer.get("hint", "")), EXIT_FAILED)
        if undo:
            self._service.audit("audit.undrained", source, node=node)
        else:
            self._service.audit("audit.drained", source, node=node)
        return {**answer, "id": node, "name": self._service.name_of(node)}

    async def _own(self, params: Params) -> dict[str, Any]:
        """`what` and `hint` where it could not be done: a member's refusal would say nothing of why."""
        request = self._service.next_request()
        late = Refusal("the daemon has not taken it in yet", "`dflow nodes` shows whether it is drained", EXIT_FAILED)
        event = DrainRequested(request, drained=params.get("undo") is not True)
        try:
            await self._service.decide(request, event, PATIENCE_S, late)
        except Refusal as refusal:
            return refusal.value
        return dict(self._service.node.unfinished(self._host.clock()))

    def _find(self, text: str) -> NodeId:
        """The living member that is meant. Raises Refusal."""
        alive: tuple[NodeId, ...] = self._service.node.membership.alive()
        found = [node for node in alive if self._service.name_of(node) == text]
        found = found or [node for node in alive if len(text) >= SHORTEST_PREFIX and node.startswith(text)]
        if len(found) == 1:
            return found[0]
        if found:
            ids = ", ".join(node[:8] for node in found[:4])
            raise Refusal(
                f"`{text[:40]}` may be {len(found)} nodes: {ids}", "name it by its id, as `dflow nodes` has it"
            )
        raise Refusal(f"no node `{text[:40]}` is alive", "`dflow nodes` lists them", elsewhere=True)
