"""References: which shards something of a run still needs here, and so what may be freed.

A shard is named by its bytes, so one of them may have several ends at once: a gradient of zeros is block, slice and
moments. Hence nothing is freed because one end of it is over, only because no other is left: what is needed is the
union over all that may need it, computed from the books whenever something goes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..events import Action
from ..names import ShardId
from ..wire.steps import Record
from ..work import inputs_of

if TYPE_CHECKING:
    from ..runs.run import Run


def needed(run: Run, records: Iterable[Record]) -> set[ShardId]:
    """What the versions that are held or copied, running calls, promises to those who left, or these records need."""
    versions = [*run.versions.held.values(), *([run.follower.target] if run.follower.target is not None else [])]
    found = {ref.id for header in versions for _, ref in header.state}
    found.update(ref.id for call in run.calls.values() for ref, _, _ in inputs_of(call.work))
    found.update(ref.id for ref, _ in run.postbox.keep_for)
    found.update(ref.id for record in records for ref in record.shards)
    return found


def all_records(run: Run) -> list[Record]:
    """Those that this node keeps back are among them: what they name is needed until it is summed and told."""
    return [record for step in run.steps.values() for record in (*step.all_records(), *step.kept_back.values())]


def keep_only(run: Run, records: Iterable[Record], out: list[Action]) -> None:
    """Free all that neither these records nor anything else of the run needs, and forget who holds it."""
    kept = needed(run, records)
    run.holdings.drop([shard for shard in run.holdings.all_here() if shard not in kept], out)
    run.holdings.know_only(kept)


def free(run: Run, shards: Iterable[ShardId], records: Iterable[Record], out: list[Action]) -> None:
    """One end of these shards is over: those go that neither these records nor anything else of the run needs."""
    spare = run.holdings.all_here().intersection(shards)
    if spare:
        run.holdings.drop(spare - needed(run, records), out)
