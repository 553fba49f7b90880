"""The names of all reports: what a log line, a trace or a dashboard may say happened.

A name is `room.happened`. error: a person must act; warning: healed, look once; info: state changed; debug: the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class ReportKind:
    """`level`: error | warning | info | debug. `fields`: those that may follow the name."""

    level: str
    meaning: str
    fields: tuple[str, ...] = ()


MEMBERSHIP: Final[dict[str, ReportKind]] = {
    "membership.joined": ReportKind("info", "a member was heard of for the first time", ("node", "incarnation", "by")),
    "membership.suspected": ReportKind(
        "info", "a member answered neither `by` nor others, and has a while to refute", ("node", "incarnation", "by")
    ),
    "membership.confirmed": ReportKind("debug", "one more member suspects a suspect", ("node", "by")),
    "membership.refuted": ReportKind("info", "a suspect is alive after all", ("node", "incarnation")),
    "membership.died": ReportKind("info", "a suspect did not refute in time", ("node", "incarnation", "by")),
    "membership.left": ReportKind("info", "a member said goodbye", ("node", "incarnation")),
    "membership.returned": ReportKind(
        "info", "a member that was dead is back, with all that it had in memory", ("node", "incarnation")
    ),
    "membership.restarted": ReportKind("info", "a member's process lives a later life", ("node", "incarnation")),
    "membership.refuting": ReportKind("warning", "others think this node gone, and it denies", ("node", "state", "by")),
    "membership.outbid": ReportKind(
        "error",
        "others know a later life of this node than its disk does: the state directory was rolled back or copied",
        ("node", "incarnation"),
    ),
    "membership.stalled": ReportKind("warning", "this process was asleep past its deadline", ("seconds",)),
    "membership.bad_claim": ReportKind("warning", "a member claimed what cannot be", ("node", "incarnation")),
    "membership.bad_meta": ReportKind("warning", "a member's announced key is not its own", ("node",)),
    "membership.full": ReportKind("error", "no room for another member", ("node", "members")),
}

REPORTS: Final[dict[str, ReportKind]] = {**MEMBERSHIP}
