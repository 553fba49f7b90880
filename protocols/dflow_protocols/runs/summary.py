"""What people are told of a run: how it stands at this node, in words and figures. Nothing follows from it."""

from __future__ import annotations

from typing import Any

from ..controllers.alarm import Alarm
from ..controllers.checkpoints import Checkpoints
from ..pipeline.grammar.engines import EXACT, REPLAY
from ..run_state import status as runs
from ..run_state.calls import Calls
from ..run_state.run_state import RunState
from ..versions import facts


def summary(state: RunState, calls: Calls, checkpoints: Checkpoints, alarm: Alarm) -> dict[str, Any]:
    """One run, by name of what is told. Steps are the pipeline's."""
    outcome, own = runs.outcome(state.status), state.versions.own
    settled = tuple(sorted(outcome["facts"].items())) if "facts" in outcome else own.facts if own else ()
    best = state.versions.newest_step
    saved, is_over = checkpoints.best, runs.has_ended(state.status)
    return {
        "run": state.id,
        "name": state.pipeline.name,
        "submitter": state.status.submitter,
        "state": runs.told(state.status),
        "step": outcome.get("step", state.told_step(max(best, own.step if own else saved.step if saved else 0))),
        "steps": state.pipeline.schedule.steps,
        "version": outcome.get("version", own.id if own else None),
        "weights": outcome.get("weights", facts.named(own)["weights"] if own else None),
        "evals": facts.evals(settled),
        "error": outcome.get("error"),
        "evidence": outcome.get("evidence", []),
        "skipped": facts.skipped(settled),
        **_reproducibility(state.pipeline.reproducibility, facts.not_exact_since(settled)),
        "blocked": _blocked(state, alarm),
        "files": state.ability.missing if state.is_active else "",
        "starved": calls.is_starved and state.is_active,
        "paused": state.is_paused and state.is_active,
        "saved": state.told_step(saved.step) if saved is not None else None,
        "settled": is_over and state.is_cleared,
        "away": {node: state.told_step(max(head.step for head in heads)) for node, heads in checkpoints.away.items()},
        "spec": state.status.spec,
    }


def _blocked(state: RunState, alarm: Alarm) -> str:
    other = runs.yields_to(state.status)
    if other is not None:
        return f"gave way to run {other[:8]}, as there is no room for both"
    return alarm.blocked if state.is_active else ""


def _reproducibility(claimed: str | None, since: int | None) -> dict[str, Any]:
    """What the weights are a function of, and from which step on if that changed on the way."""
    is_less = claimed == EXACT and since is not None
    return {"reproducibility": REPLAY if is_less else claimed, "since_step": since if is_less else None}
