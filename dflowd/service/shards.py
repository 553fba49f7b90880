"""Answers about what lies where: shards by node, step and kind, and how full each node's store is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dflow_protocols.names import NodeId, RunId, ShardId
from dflow_protocols.run_state.inventory import kinds
from dflow_protocols.runs.run import Run

from .dispatch import Service
from .request import Params

Listing = Callable[[], list[tuple[ShardId, int, list[RunId]]]]
UNKNOWN = (-1, "other")  # such as what is being fetched for a step that this node has no records of yet


class ShardAnswers:
    """`shards`, and this node's share of them."""

    def __init__(
        self, service: Service, runs: Mapping[RunId, Run], listing: Listing, usage: Callable[[], dict[str, Any]]
    ) -> None:
        """`listing`: each shard here, its bytes in memory and the runs that refer to it."""
        self._service, self._runs, self._listing, self._usage = service, runs, listing, usage
        service.serve({"shards": self._gather_shards}, {"share.shards": self._own_shards})

    async def _gather_shards(self, source: NodeId, params: Params, deadline_s: float) -> dict[str, Any]:
        run = self._service.find(params) if params.get("run") else None
        shares, missing = await self._service.gather("share.shards", {"run": run}, deadline_s)
        nodes = [
            {"node": self._service.name_of(node), "node_id": node, **share} for node, share in sorted(shares.items())
        ]
        return {"nodes": nodes, "missing": missing}

    def _own_shards(self, params: Params) -> dict[str, Any]:
        known = {run: kinds(view.state) for run, view in self._runs.items()}
        rows: dict[tuple[RunId, int, str], list[int]] = {}
        for shard, nbytes, runs in self._listing():
            for run in runs:
                if params["run"] in (None, run):
                    step, kind = known.get(run, {}).get(shard, UNKNOWN)
                    row = rows.setdefault((run, step, kind), [0, 0])
                    row[0] += 1
                    row[1] += nbytes
        return {
            "store": self._usage(),
            "shards": [
                {"run": run, "step": step if step >= 0 else None, "kind": kind, "count": count, "bytes": nbytes}
                for (run, step, kind), (count, nbytes) in sorted(rows.items())
            ],
        }
