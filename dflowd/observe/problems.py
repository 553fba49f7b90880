"""What is wrong with this daemon now: for `status` and `doctor`, and with a run of which it is for `ps` and `watch`.

A problem stands until whoever noticed it takes it back, or, of a report that is a concern (see concerns.py), until
another report says that it is over. What happened and is over is a report, not a problem.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dflow_protocols.concerns import CONCERNS, Concern
from dflow_protocols.events import Report

MOST_OF_A_KIND = 8  # then the oldest go: what a peer can cause must not push out what is wrong here
SEVERITIES = ("error", "warning")


@dataclass(frozen=True, slots=True)
class _Problem:
    kind: str
    what: str
    hint: str
    level: str
    fields: Mapping[str, Any]
    since_s: float
    until_s: float


class Problems:
    """Standing problems by a key of whoever notices them, each with what a person can do about it."""

    def __init__(self) -> None:
        self._standing: dict[str, _Problem] = {}

    def note(self, key: str, what: str, hint: str, stands_s: float = math.inf, run: str = "") -> None:
        """Say that it stands, or how it stands now. `stands_s`: for so long, where nobody can tell when it is over.
        `run`: that it is shown with."""
        self._put(key, key.partition("/")[0], what, hint, "error", {"run": run} if run else {}, stands_s)

    def clear(self, key: str) -> None:
        self._standing.pop(key, None)

    def learn(self, report: Report) -> None:
        """A report may be a concern, or the end of one."""
        for key, problem in list(self._standing.items()):
            concern = CONCERNS.get(problem.kind)
            if concern is not None and report.name in concern.over and _is_about(concern, problem, report):
                del self._standing[key]
        concern = CONCERNS.get(report.name)
        if concern is not None:
            key, what = concern.key(report.name, report.fields), concern.said(report.fields)
            self._put(key, report.name, what, concern.hint, report.level, report.fields, concern.stands_s)

    def _put(
        self, key: str, kind: str, what: str, hint: str, level: str, fields: Mapping[str, Any], stands_s: float
    ) -> None:
        now = time.monotonic()
        before = self._standing.pop(key, None)
        since_s = before.since_s if before is not None and before.until_s > now else now
        self._standing[key] = _Problem(kind, what, hint, level, fields, since_s, now + stands_s)
        alike = [name for name, problem in self._standing.items() if problem.kind == kind]
        for name in alike[:-MOST_OF_A_KIND]:
            del self._standing[name]

    def rows(self, run: str | None = None) -> list[dict[str, Any]]:
        """{key, what, hint, level, run, for_s} of each, the gravest first, the newest first of these. `run`: of that
        one only."""
        now = time.monotonic()
        self._standing = {key: problem for key, problem in self._standing.items() if now < problem.until_s}
        told = [
            {
                "key": key,
                "what": problem.what,
                "hint": problem.hint,
                "level": problem.level,
                "run": str(problem.fields.get("run", "")),
                "for_s": round(now - problem.since_s, 1),
            }
            for key, problem in reversed(self._standing.items())
        ]
        told.sort(key=lambda row: SEVERITIES.index(row["level"]))
        return told if run is None else [row for row in told if row["run"] == run]


def _is_about(concern: Concern, problem: _Problem, report: Report) -> bool:
    """Whether a report that takes such problems back is about the same run, stage or node."""
    return all(report.fields[name] == problem.fields.get(name) for name in concern.by if name in report.fields)
