"""Run status: a lattice active < failed < finished < cancelled, merged upwards, kept on disk as a tombstone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgpack

from .names import NodeId, RunId
from .wire.steps import Roster, RunPut

ACTIVE, FAILED, FINISHED, CANCELLED = "active", "failed", "finished", "cancelled"
RANK = {ACTIVE: 0, FAILED: 1, FINISHED: 2, CANCELLED: 3}
TOMBSTONE_S = 30 * 24 * 3600.0  # how long a node remembers how a run ended


def merge(mine: RunPut, other: RunPut) -> RunPut:
    """The later status of one run; of two alike the one with the smaller outcome. Commutative, associative."""
    return min(mine, other, key=lambda status: (-RANK[status.state], status.outcome))


def ended(status: RunPut, state: str, outcome: dict[str, Any]) -> RunPut:
    """`status` moved up to `state`, with what came of it."""
    return merge(status, replace(status, state=state, outcome=msgpack.packb(outcome)))


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
                status.spec,
                status.base,
                status.submitter,
                status.nonce,
                [roster.step, roster.generation, roster.members, roster.trainers],
                status.outcome,
            ]
        )
    )


def load(data: bytes) -> RunPut:
    """Raises ValueError, TypeError or a msgpack error if `data` was not written by `dump`."""
    run, state, spec, base, submitter, nonce, roster, result = msgpack.unpackb(data, use_list=False)
    if state not in RANK:
        raise ValueError(f"unknown run state {state!r}")
    return RunPut(RunId(run), state, spec, base, NodeId(submitter), nonce, Roster(*roster), result, False)
