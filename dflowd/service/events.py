"""Answers about what happened: the latest reports of all members, in the order of their clocks."""

from __future__ import annotations

from typing import Any

from dflow_protocols.names import NodeId, RunId

from ..observe.log import LEVELS
from .dispatch import Service
from .request import MOST_ROWS, Params, Refusal, limit_of, number_of


class EventAnswers:
    """`events`, and this node's share of them.

    An answer's `heard` is given back as `after`: then only what is newer comes. It names for each node its life and
    the number of its last report, as numbers start anew with a node's process.
    """

    def __init__(self, service: Service, life: float) -> None:
        """`life`: when this process began, in seconds since 1970."""
        self._service, self._life = service, life
        service.serve({"events": self._gather_events}, {"share.events": self._own_events})

    async def _gather_events(self, source: NodeId, params: Params, deadline_s: float) -> dict[str, Any]:
        level = params.get("level", "debug")
        if level not in LEVELS:
            raise Refusal(f"no level `{str(level)[:40]}`", f"levels are {', '.join(LEVELS)}")
        asked = {
            "run": self._service.find(params) if params.get("run") else None,
            "level": level,
            "since_s": number_of(params, "since_s", 0.0),
            "after": params.get("after") or {},
            "limit": limit_of(params, 200),
        }
        shares, missing = await self._service.gather("share.events", asked, deadline_s)
        events = [
            {**event, "node": self._service.name_of(node), "node_id": node}
            for node, share in shares.items()
            for event in share["events"]
        ]
        events.sort(key=lambda event: (event["time_s"], event["node_id"], event["number"]))
        heard = {node: [share["life"], share["last"]] for node, share in shares.items()}
        names = {node: self._service.name_of(node) for node in sorted(self._service.node.membership.members)}
        return {"events": events[-limit_of(params, 200) :], "heard": heard, "names": names, "missing": missing}

    def _own_events(self, params: Params) -> dict[str, Any]:
        life, last = params["after"].get(self._service.me, (0.0, 0))
        after = int(last) if life == self._life else 0
        run = None if params["run"] is None else RunId(params["run"])
        events = self._service.recorder.log.recent(
            run,
            limit_of(params, MOST_ROWS),
            after=after,
            since_s=float(params["since_s"]),
            level=str(params["level"]),
        )
        return {"events": events, "life": self._life, "last": max(after, self._service.recorder.log.count)}
