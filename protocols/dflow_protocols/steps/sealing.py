"""Seals: which one counts, when one is made, and when one is given up.

A step has two: the manifest fixes the records that training reads, the update seal the reduced slices (and what was
evaluated on the step's version). Of two with one predecessor, the one on whose chain a living node holds a version
wins, else the higher generation, else the smaller id. The first of the succession makes them; the next one steps in
after a suspicion time, at once when the first is dead.
"""

from __future__ import annotations

from ..names import MANIFEST, UPDATE, Partition, SealKind, SpecId, TaskKey
from ..pipeline.plan import Chain, StepPlan
from ..versions.versions import Versions
from ..wire.steps import Record, Seal, Skip
from .batch import Batch, gradient_cover, slice_records
from .patience import Wait
from .view import Desk

MAX_DOUBLINGS = 6  # of the time until a seal is void
SOLE_COPY_AFTER = 3.0  # suspicion times that a sealer waits for second holders, or for replicas that answer nothing


def chosen(desk: Desk, versions: Versions, kind: SealKind, previous: str | None, settled: bool = True) -> Seal | None:
    """The seal of this kind that counts among those known; with settled=False, among those that are not yet settled.

    `previous`: the seal or version that it must follow; None if that is not known here. A seal on whose chain a living
    node holds a version needs no predecessor here: others went that way already.
    """
    fits = [
        (not is_carried(desk, versions, seal), -seal.generation, seal.id, seal)
        for seal in desk.step.seals.values()
        if (seal.kind, seal.parent) == (kind, desk.header.id) and (seal.id in desk.step.settled) == settled
    ]
    fits = [fit for fit in fits if not fit[0] or previous is None or fit[3].previous == previous]
    return min(fits, key=lambda fit: fit[:3])[3] if fits else None


def is_carried(desk: Desk, versions: Versions, seal: Seal) -> bool:
    """Whether a living node holds a version on the seal's chain, one that can be had from it: a head that gave nothing
    for a suspicion time is set aside, and holds nobody up until it is tried again."""
    updates = {seal.id} if seal.kind == UPDATE else {s.id for s in desk.step.seals.values() if s.previous == seal.id}
    made = [header for header in versions.headers.values() if header.seal in updates and header.step > desk.header.step]
    heads = [head.version for head, _ in versions.claimed(desk.now, desk.living)]
    return any(versions.descends(head, header) for header in made for head in heads)


def is_turn(desk: Desk, what: str) -> bool:
    """Whether this node may do what has been due for so long (`Wait.TURN`): one suspicion a rank."""
    rank = desk.succession.index(desk.me)
    return desk.step.patience.lasts(desk.now, Wait.TURN, what) >= rank * desk.suspicion_s


def is_kept(desk: Desk, seal: Seal) -> bool:
    """Whether a seal lies on all living replicas of the step; on two, when waiting for the others did not help."""
    acked = desk.step.acks[seal.id]
    late = desk.step.patience.lasts(desk.now, Wait.ACKS, seal.id) > SOLE_COPY_AFTER * desk.suspicion_s
    return acked.issuperset(desk.replicas) or (late and len(acked & desk.living) >= min(2, len(desk.living)))


def entries_of(desk: Desk, chains: tuple[Chain, ...]) -> tuple[Record, ...] | None:
    """The accepted records of all partitions of these chains but those in quarantine, or None while one is
    unfinished."""
    entries: list[Record] = []
    for chain in chains:
        for partition in range(chain.partitions):
            records = desk.step.chain(chain, partition, desk.header.id, desk.counts)
            if len(records) < len(chain.stages):
                if TaskKey(desk.step.number, chain.stages[0], Partition(partition)) in desk.skipped:
                    continue
                return None
            entries += records
    return tuple(entries)


def sealed_chains_of(plan: StepPlan, kind: SealKind) -> tuple[Chain, ...]:
    return tuple(chain for chain in plan.chains if chain.sealed_in == kind)


def sealed_chains(desk: Desk, kind: SealKind) -> tuple[Chain, ...]:
    return sealed_chains_of(desk.plan, kind)


def skips_of(desk: Desk, entries: tuple[Record, ...]) -> tuple[Skip, ...]:
    """The partitions in quarantine that these entries lack."""
    there = {(record.task.stage, record.task.part) for record in entries}
    mine = sorted(task for task in desk.skipped if task.step == desk.step.number)
    return tuple(desk.skipped[task] for task in mine if (task.stage, task.part) not in there)


def has_copies(desk: Desk, entries: tuple[Record, ...]) -> bool:
    """Whether every output has two living holders (or all there are)."""
    due = min(2, len(desk.living))
    return all(len(desk.holdings.live_holders(ref.id, desk.living)) >= due for each in entries for ref in each.shards)


def is_void(desk: Desk, seal: Seal) -> bool:
    """Whether what a seal names is gone and missed (`Wait.RETURN`), for a suspicion time, doubled by each
    generation."""
    bound = desk.suspicion_s * 2.0 ** min(seal.generation, MAX_DOUBLINGS)
    return desk.step.patience.lasts(desk.now, Wait.RETURN, seal.id) > bound


def is_missed(desk: Desk, manifest: Seal, batch: Batch | None) -> bool:
    """Whether a record of the manifest has no living holder, and training still reads them."""
    lost = any(not desk.counts(record) for record in manifest.entries)
    return lost and (batch is None or gradient_cover(desk, batch) is None)


def is_update_missed(desk: Desk, versions: Versions, update: Seal) -> bool:
    """Whether a slice has no living holder, and no living node got as far as the version."""
    lost = any(not desk.counts(record) for record in update.entries)
    return lost and not is_carried(desk, versions, update)


# Making seals: here the patience with what they wait for starts and ends ---------------------------------------------


def propose_manifest(desk: Desk, spec: SpecId, current: Seal | None, batch: Batch | None) -> Seal | None:
    """The manifest that this node should make now, if any: the first, or one more generation of a void one."""
    patience = desk.step.patience
    if current is not None:
        patience.follow(desk.now, is_missed(desk, current, batch), Wait.RETURN, current.id)
        if not is_void(desk, current):
            return None
    entries = entries_of(desk, sealed_chains(desk, MANIFEST))
    if entries is None:
        return None
    if not has_copies(desk, entries):
        patience.start(desk.now, Wait.COPIES)
        if patience.lasts(desk.now, Wait.COPIES) <= SOLE_COPY_AFTER * desk.suspicion_s:
            return None  # one holder is enough when waiting did not help
    generation = 0 if current is None else current.generation + 1
    if current is not None and entries == current.entries:
        return None
    turn = f"{MANIFEST}/{generation}"
    patience.start(desk.now, Wait.TURN, turn)
    if not is_turn(desk, turn):
        return None
    skipped = skips_of(desk, entries)
    return Seal(spec, desk.step.number, desk.header.id, desk.header.id, MANIFEST, generation, 0, entries, skipped)


def propose_update(
    desk: Desk, versions: Versions, spec: SpecId, previous: str, current: Seal | None, batch: Batch | None
) -> Seal | None:
    """The update seal that this node should make now, if any."""
    patience = desk.step.patience
    if current is not None:
        patience.follow(desk.now, is_update_missed(desk, versions, current), Wait.RETURN, current.id)
        if not is_void(desk, current):
            return None
    slices = slice_records(desk, batch) if batch is not None else ()
    if any(record is None for record in slices):
        return None
    evaluated = entries_of(desk, sealed_chains(desk, UPDATE))
    if evaluated is None:
        return None
    entries = (*(record for record in slices if record is not None), *evaluated)
    generation = 0 if current is None else current.generation + 1
    if current is not None and entries == current.entries:
        return None
    turn = f"{UPDATE}/{previous}/{generation}"
    patience.start(desk.now, Wait.TURN, turn)
    if not is_turn(desk, turn):
        return None
    samples = batch.samples if batch is not None else 0
    return Seal(spec, desk.step.number, desk.header.id, previous, UPDATE, generation, samples, entries)


def begin_to_settle(desk: Desk, seal: Seal) -> bool:
    """Take it upon this node to have a seal kept by the replicas, if it is its turn. True if it took it now."""
    if seal.id in desk.step.acks:
        return False
    turn = f"settle/{seal.id}"
    desk.step.patience.start(desk.now, Wait.TURN, turn)
    if not is_turn(desk, turn):
        return False
    desk.step.begin_to_settle(seal, desk.me)
    desk.step.patience.start(desk.now, Wait.ACKS, seal.id)
    return True
