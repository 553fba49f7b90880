"""Run status: a lattice active < failed < finished < cancelled, merged upwards, kept on disk as a tombstone.

A run that a person stopped has failed, and its outcome says that nothing went wrong; so has one that gave way to
another run for want of room, and is taken up again by itself. A failed run that is taken up
again is active at the next attempt, which is above failed at the one before. What has finished or was cancelled has
ended at every attempt. Attempts go round: whatever a member says there is one after it that all take for later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, Literal, TypeAlias

import msgpack

from ..names import NodeId, RunId, ShardId, ShardRef, content_id
from ..versions.facts import evals
from ..wire.listing import FileRef
from ..wire.steps import Roster, RunAck, RunPut

Lifecycle: TypeAlias = Literal["active", "failed", "finished", "cancelled"]
ACTIVE: Final = "active"
FAILED: Final = "failed"
FINISHED: Final = "finished"
CANCELLED: Final = "cancelled"
RANK: Mapping[str, int] = {ACTIVE: 0, FAILED: 1, FINISHED: 2, CANCELLED: 3}
ATTEMPTS = 1 << 20  # serial numbers, which go round (RFC 1982); nobody resumes a run half as often
FIELDS = 10  # of the form on disk
FROM_START = "from_start"
STOPPED = "stopped"
YIELDS = "yields"
_SAID: dict[str, type] = {
    "samples": int,
    "step": int,
    "version": str,
    "weights": str,
    "error": str,
    "facts": dict,
    YIELDS: str,
}


def is_later(attempt: int, than: int) -> bool:
    """Whether one attempt comes after another: it is less than half a round ahead."""
    ahead = (attempt - than) % ATTEMPTS
    return 0 < ahead < ATTEMPTS // 2 or (ahead == ATTEMPTS // 2 and attempt > than)


def is_above(one: RunPut | RunAck, other: RunPut | RunAck) -> bool:
    """Whether one status is further up: attempts order what is active or failed, and nothing else."""
    rank, low = RANK[one.state], RANK[other.state]
    if max(rank, low) > RANK[FAILED]:
        return rank > low
    return is_later(one.attempt, other.attempt) or (one.attempt == other.attempt and rank > low)


def merge(mine: RunPut, other: RunPut) -> RunPut:
    """The later status of one run; of two ends the one that fork choice prefers. Commutative; associative for attempts
    of one half of the round, as all are that nobody invented."""
    if is_above(mine, other) or is_above(other, mine):
        return mine if is_above(mine, other) else other
    return min(mine, other, key=lambda status: (*_fork_choice(status), status.outcome, status.attempt))


def _fork_choice(status: RunPut) -> tuple[int, int, str]:
    """Most samples trained on, then most steps, then the smaller version: as for heads."""
    try:
        result = outcome(status)
        return (-int(result.get("samples", 0)), -int(result.get("step", 0)), str(result.get("version", "")))
    except (ValueError, TypeError):
        return (0, 0, "")


def is_sound(status: RunPut) -> bool:
    """Whether a status says what one may: a known state, and an outcome of the form that `ended` is given."""
    try:
        said = outcome(status)
        evals(tuple(said.get("facts", {}).items()))
        is_known = status.state in RANK and status.attempt < ATTEMPTS
        return is_known and all(isinstance(said.get(name, kind()), kind) for name, kind in _SAID.items())
    except (ValueError, TypeError, AttributeError):
        return False


def outcome_id(status: RunPut) -> str:
    return content_id("outcome", status.outcome)


def ended(status: RunPut, state: Lifecycle, outcome: dict[str, Any]) -> RunPut:
    """`status` moved up to `state`, with what came of it. One that gave way has failed at its attempt, so what ends it
    is of the next one."""
    attempt = next_attempt(status) if yields_to(status) is not None else status.attempt
    return merge(status, replace(status, state=state, attempt=attempt, outcome=msgpack.packb(outcome)))


def resumed(status: RunPut, from_start: bool = False) -> RunPut:
    """`status`, which failed or was stopped, active again at the next attempt; with `from_start` at version 0, whatever
    there is."""
    said = msgpack.packb({FROM_START: True}) if from_start else b""
    return replace(status, state=ACTIVE, attempt=next_attempt(status), outcome=said)


def next_attempt(status: RunPut) -> int:
    """Never 0 again: whoever hears of a run at that for the first time takes it for one that was just submitted."""
    return (status.attempt + 1) % ATTEMPTS or 1


def begins_anew(status: RunPut) -> bool:
    """Whether this attempt was told to begin at version 0."""
    return status.state == ACTIVE and bool(outcome(status).get(FROM_START))


def is_stopped(status: RunPut) -> bool:
    """Whether a person stopped it, to resume it later."""
    return status.state == FAILED and bool(outcome(status).get(STOPPED))


def yields_to(status: RunPut) -> RunId | None:
    """The run that it gave way to, as there was no room for both, if it waits for that."""
    return RunId(outcome(status)[YIELDS]) if status.state == FAILED and YIELDS in outcome(status) else None


def has_ended(status: RunPut) -> bool:
    """Whether it does not go on by itself."""
    return status.state != ACTIVE and yields_to(status) is None


def told(status: RunPut) -> str:
    """The state in the words that people and scripts read."""
    if is_stopped(status):
        return STOPPED
    if yields_to(status) is not None:
        return ACTIVE
    return "done" if status.state == FINISHED else status.state


def outcome(status: RunPut) -> dict[str, Any]:
    return dict(msgpack.unpackb(status.outcome)) if status.outcome else {}


def dump(status: RunPut) -> bytes:
    """The form on disk."""
    roster = status.roster
    return bytes(
        msgpack.packb(
            [
                status.run,
                status.state,
                status.attempt,
                status.spec,
                status.base,
                [[file.key, file.name, file.ref.id, file.ref.nbytes] for file in status.files],
                status.submitter,
                status.nonce,
                [roster.step, roster.generation, roster.members, roster.trainers, roster.slots],
                status.outcome,
            ]
        )
    )


def load(data: bytes) -> RunPut:
    """Raises ValueError, TypeError or a msgpack error if `data` was not written by `dump`."""
    try:
        fields = msgpack.unpackb(data, use_list=False)
    except (ValueError, msgpack.UnpackException):
        fields = None
    if not isinstance(fields, tuple) or len(fields) != FIELDS:
        raise ValueError("it was written by another release, or is torn")
    run, state, attempt, spec, base, files, submitter, nonce, roster, result = fields
    if state not in RANK:
        raise ValueError(f"unknown run state {state!r}")
    listed = tuple(FileRef(key, name, ShardRef(ShardId(shard), nbytes)) for key, name, shard, nbytes in files)
    said = (NodeId(submitter), nonce, Roster(*roster), result)
    return RunPut(RunId(run), state, int(attempt), spec, base, listed, *said, False)
