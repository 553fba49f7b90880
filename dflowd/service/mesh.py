"""Answers about this node and the mesh."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dflow_protocols.claiming.ability import has_gpus
from dflow_protocols.names import NodeId
from dflow_protocols.wire.keys import key_text

from .dispatch import Myself, Service
from .request import Params
from .standing import StandingProblems

Told = Callable[[], dict[str, Any]]


class MeshAnswers:
    """`status`, `nodes`."""

    def __init__(self, service: Service, me: Myself, engines: Told, memory: Told, traffic: Told, gpus: Told) -> None:
        self._service, self._me, self._node, self._standing = service, me, service.node, StandingProblems(service)
        self._engines, self._memory, self._traffic, self._gpus = engines, memory, traffic, gpus
        service.serve({"status": self._status, "nodes": self._nodes}, {"share.gpus": lambda params: self._gpus()})

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
                    "roles": list(meta.roles) if known else [],
                    "withdrawn": self._node.withdrawn(node),
                    "facts": dict(meta.facts) if known else {},
                    "unreached": sorted(self._node.membership.reach.unreached.get(node, ())),
                    **told.get(node, {"gpus": [], "drained": []}),
                }
            )
        return {"nodes": nodes, "missing": missing}
