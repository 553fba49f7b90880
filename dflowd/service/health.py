"""What `dflow doctor` asks: facts and standing problems of every member, and how far their clocks are apart."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dflow_protocols.names import NodeId

from .dispatch import Service
from .request import Params
from .standing import StandingProblems

Told = Callable[[], dict[str, Any]]
Gpus = Sequence[Mapping[str, Any]]


class HealthAnswers:
    """`doctor`, and this node's share of it."""

    def __init__(
        self, service: Service, facts: Callable[[Gpus], dict[str, Any]], gpus: Told, engines: Told, allowed: Told
    ) -> None:
        """`allowed`: the allow-list in force, as `keys` (how many) and `digest`."""
        self._service, self._facts, self._gpus, self._engines = service, facts, gpus, engines
        self._allowed = allowed
        self._wall_clock = service.host.wall_clock
        self._standing = StandingProblems(service)
        service.serve({"doctor": self._doctor}, {"share.health": self._own})

    async def _doctor(self, source: NodeId, params: Params, deadline_s: float) -> dict[str, Any]:
        """`members`: a map a member that answered, this node's first. `clock_off_s`: by how much its clock is surely
        ahead of this node's; between what was asked and what was heard no more can be told."""
        asked_s = self._wall_clock()
        shares, missing = await self._service.gather("share.health", {}, deadline_s)
        heard_s = self._wall_clock()
        members = []
        for node, share in shares.items():
            clock_s = float(share["clock_s"])
            off_s = max(0.0, clock_s - heard_s) or min(0.0, clock_s - asked_s)
            members.append({**share, "id": node, "name": self._service.name_of(node), "clock_off_s": off_s})
        return {"members": members, "missing": missing, "took_s": heard_s - asked_s}

    async def _own(self, params: Params) -> dict[str, Any]:
        facts = await asyncio.to_thread(self._facts, self._gpus()["gpus"])  # a slow disk answers late
        slots = self._engines()["slots"]
        return {
            **facts,
            "clock_s": self._wall_clock(),
            "engines": [str(slot["numerics"]) for slot in slots if slot["numerics"]],
            "allow_list": self._allowed(),
            "problems": self._standing.rows(),
        }
