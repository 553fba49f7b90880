"""What a node does whose key another, earlier process has: it gives up what runs, and serves nobody."""

from __future__ import annotations

from collections.abc import Iterable

from ..events import Action, CancelRequested, DrainRequested, Event, Reply, ResumeRequested, StopRequested, Submitted
from .run import Run

WHAT = "this daemon is silent: another one with its key was there first"
HINT = "ask another daemon; `status` of this one says which, and what to do"


def give_up(runs: Iterable[Run]) -> list[Action]:
    """Stop all that runs here: the other process is this node to everybody."""
    out: list[Action] = []
    for run in runs:
        run.calls.stop_all(out)
    return out


def decline(event: Event) -> list[Action]:
    """Clients are told; whatever else happens is of no concern."""
    match event:
        case (
            Submitted(request=request)
            | CancelRequested(request=request)
            | StopRequested(request=request)
            | ResumeRequested(request=request)
            | DrainRequested(request=request)
        ):
            return [Reply(request, False, {"what": WHAT, "hint": HINT})]
    return []
