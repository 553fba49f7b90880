"""References: which shards something of a run still needs here, and so what may be freed.

A shard is named by its bytes, so one of them may have several ends at once: a gradient of zeros is block, slice and
moments. Hence nothing is freed because one end of it is over, only because no other is left: what is needed is the
union over all that may need it, computed from the state whenever something goes.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..events import Action
from ..names import ShardId
from ..wire.steps import Record
from ..work import inputs_of
from .run_state import RunState


def needed(state: RunState, records: Iterable[Record]) -> set[ShardId]:
    """What the versions that are held or copied, running calls, promises to others, or these records need."""
    target = state.catch_up.target
    versions = [*state.versions.held.values(), *([target] if target is not None else [])]
    found = {ref.id for header in versions for _, ref in header.state}
    found.update(ref.id for call in state.calls.values() for ref, _, _ in inputs_of(call.work))
    found.update(ref.id for ref, _ in state.keep_for)
    found.update(bringing.shard.id for bringing in state.bringing)
    found.update(ref.id for record in records for ref in record.shards)
    return found


def all_records(state: RunState) -> list[Record]:
    """Those that this node keeps back are among them: what they name is needed until it is summed and told."""
    return [record for step in state.steps.values() for record in (*step.all_records(), *step.kept_back.values())]


def keep_only(state: RunState, records: Iterable[Record], out: list[Action]) -> None:
    """Free all that neither these records nor anything else of the run needs, and forget who holds it."""
    kept = needed(state, records)
    state.holdings.drop([shard for shard in state.holdings.all_here() if shard not in kept], out)
    state.holdings.know_only(kept)


def free(state: RunState, shards: Iterable[ShardId], records: Iterable[Record], out: list[Action]) -> None:
    """One end of these shards is over: those go that neither these records nor anything else of the run needs."""
    spare = state.holdings.all_here().intersection(shards)
    if spare:
        state.holdings.drop(spare - needed(state, records), out)
