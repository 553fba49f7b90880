"""What stands as wrong: with this node for `status` and `doctor`, with a run on any member for `runs` and `run`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from dflow_protocols.names import NodeId, RunId

from ..state.disk import KEY as DISK
from .dispatch import Service
from .troubles import troubles

OF_THE_DAEMON = ("membership.silenced", "membership.unreachable", "membership.late", DISK)
"""Problems with which a daemon is of no use as it is; the others are a run's, a peer's or one engine's."""
_ID = re.compile(r"\b[0-9a-f]{32}\b")


class StandingProblems:
    """Reads the problems that the recorder hears of. Tells nodes by their names."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def rows(self) -> list[dict[str, Any]]:
        """All problems of this node: {key, what, hint}, and of some `level`, `run` and `for_s`."""
        own = [asdict(each) for each in troubles(self._service.node.membership)]
        return [self._named(row) for row in own + self._service.recorder.problems.rows()]

    def of_the_daemon(self) -> list[str]:
        """Why this daemon is of no use as it is, in words, each with what a person can do. [] while it is well."""
        rows = (row for row in self.rows() if str(row["key"]).partition("/")[0] in OF_THE_DAEMON)
        return [f"{row['what']}: {row['hint']}" for row in rows]

    def of_run(self, run: RunId) -> dict[str, Any]:
        """This node's share of how a run stands. `reached`: steps that it ever had of it; `saved`: of the best version
        on its disk; `held`: of the best in its memory; None where there is none. `settled`: it is over, and
        saved here as far as it is to be."""
        view = self._service.node.runs[run]
        summary = view.summary()
        return {
            "problems": [self._named(row) for row in self._service.recorder.problems.rows(run)],
            "reached": view.schedule.nearest(self._service.recorder.metrics.reached(run)).step,
            "saved": summary.get("saved"),
            "held": summary["step"] if summary.get("version") is not None else None,
            "settled": bool(summary.get("settled")),
        }

    def merged(self, shares: Mapping[NodeId, Mapping[str, Any]]) -> dict[str, Any]:
        """How a run stands by the shares of all members. `problems`: each once, with the names of who has it."""
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for node, share in shares.items():
            for row in share["problems"]:
                told = found.setdefault((row["key"], row["what"]), {**row, "nodes": []})
                told["nodes"].append(self._service.name_of(node))
        return {
            "problems": sorted(found.values(), key=lambda row: row["level"] != "error"),
            "reached": max((share["reached"] for share in shares.values()), default=0),
            "saved": _most(share["saved"] for share in shares.values()),
            "held": _most(share["held"] for share in shares.values()),
            "settled": all(share["settled"] for share in shares.values()),
        }

    def _named(self, row: Mapping[str, Any]) -> dict[str, Any]:
        members = self._service.node.membership.members
        what = _ID.sub(
            lambda found: self._service.name_of(NodeId(found[0])) if found[0] in members else found[0], str(row["what"])
        )
        return {**row, "what": what}


def _most(steps: Iterable[int | None]) -> int | None:
    return max((step for step in steps if step is not None), default=None)
