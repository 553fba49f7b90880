"""Long seals: one whose records fill no single message travels as these records, then their names.

So how many records a step has is bounded by a list of names, not by a frame; and the records come by messages that a
node takes anyhow. Where some of them are lost the seal cannot be put together, and is asked for again.
"""

from __future__ import annotations

from dataclasses import replace

from ..steps.step import Step
from ..wire.steps import BucketPut, Held, SealNames, SealPut

SEAL_A_MESSAGE = 1 << 20  # bytes of a seal that is sent whole, packed: as many records as a list has, mostly
RECORDS_A_MESSAGE = 256  # of those that go before its names; a record has 1-2 KB, and a message must fit into a frame


def parted(put: SealPut) -> tuple[tuple[BucketPut, ...], SealPut | SealNames]:
    """The messages that bring a seal, in order: its records, if it is long, and what makes it of them."""
    seal = put.seal
    if len(seal.packed) <= SEAL_A_MESSAGE:
        return (), put
    known = {shard: frozenset(holders) for shard, holders in put.holders}
    held = []
    for record in seal.entries:
        each = [known.get(ref.id, frozenset()) for ref in record.shards]
        held.append(Held(record, tuple(sorted(frozenset.intersection(*each))) if each else ()))
    before = tuple(
        BucketPut(put.run, seal.step, tuple(held[at : at + RECORDS_A_MESSAGE]), ())
        for at in range(0, len(held), RECORDS_A_MESSAGE)
    )
    names = tuple(record.id for record in seal.entries)
    return before, SealNames(put.run, replace(seal, entries=()), names, put.settled, put.roster, put.onward)


def joined(named: SealNames, step: Step) -> SealPut | None:
    """The seal, if the books have all that it names. Who holds that came with the records."""
    entries = tuple(step.by_id[name] for name in named.entries if name in step.by_id)
    if len(entries) < len(named.entries):
        return None
    return SealPut(named.run, replace(named.seal, entries=entries), named.settled, (), named.roster, named.onward)
