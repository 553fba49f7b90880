"""Seals, the certificates that a step's replicas keep: which one counts, when one is made, and when given up.

A step has two: the manifest fixes the records that training reads, the update seal the reduced slices (and what was
evaluated on the step's version). Of two with one predecessor, the one on whose chain a living node holds a version
wins, else the higher generation, else the smaller id. The first of the succession makes them; the next one steps in
after a suspicion time, at once when the first is dead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from ..names import MANIFEST, UPDATE, Partition, SealKind, SpecId, TaskKey, VersionId
from ..pipeline.plan import Chain, StepPlan
from ..versions.versions import Versions
from ..wire.steps import Record, Seal, Skip
from .batch import Batch, gradient_cover, slice_records
from .patience import Wait
from .view import StepView

MAX_DOUBLINGS = 6  # of the time until a seal is void
SOLE_COPY_AFTER = 3.0  # suspicion times that a sealer waits for second holders, or for replicas that answer nothing


def chosen(
    view: StepView, versions: Versions, kind: SealKind, previous: str | None, settled: bool = True
) -> Seal | None:
    """The seal of this kind that counts among those known; with settled=False, among those that are not yet settled.

    `previous`: the seal or version that it must follow; None if that is not known here. A seal on whose chain a living
    node holds a version needs no predecessor here: others went that way already.
    """
    fits = [
        (not is_carried(view, versions, seal), -seal.generation, seal.id, seal)
        for seal in view.step.seals.values()
        if (seal.kind, seal.parent) == (kind, view.trains.id) and (seal.id in view.step.settled) == settled
    ]
    fits = [fit for fit in fits if not fit[0] or previous is None or fit[3].previous == previous]
    return min(fits, key=lambda fit: fit[:3])[3] if fits else None


def is_carried(view: StepView, versions: Versions, seal: Seal) -> bool:
    """Whether a living node holds a version on the seal's chain, one that can be had from it: a head that gave nothing
    for a suspicion time is set aside, and holds nobody up until it is tried again."""
    updates = {seal.id} if seal.kind == UPDATE else {s.id for s in view.step.seals.values() if s.previous == seal.id}
    made = [header for header in versions.headers.values() if header.seal in updates and header.step > view.trains.step]
    heads = versions.claimed(view.now, view.living) if made else []
    return any(versions.descends(head.version, header) for header in made for head in heads)


def is_turn(view: StepView, what: str) -> bool:
    """Whether this node may do what has been due for so long (`Wait.TURN`): one suspicion for each that comes before
    it, but for those that copy a version: until that is whole they seal nothing."""
    before = view.succession[: view.succession.index(view.me)]
    rank = sum(node not in view.behind for node in before)
    return view.step.patience.lasts(view.now, Wait.TURN, what) >= rank * view.suspicion_s


def is_kept(view: StepView, seal: Seal) -> bool:
    """Whether a seal lies on all living replicas of the step; on two, when waiting for the others did not help."""
    acked = view.step.acks[seal.id]
    late = view.step.patience.lasts(view.now, Wait.ACKS, seal.id) > SOLE_COPY_AFTER * view.suspicion_s
    return acked.issuperset(view.replicas) or (late and len(acked & view.living) >= min(2, len(view.on_duty)))


def entries_of(view: StepView, chains: tuple[Chain, ...]) -> tuple[Record, ...] | None:
    """The accepted records of all partitions of these chains but those in quarantine, in as many rounds as there are
    to be; or None while one is unfinished."""
    entries: list[Record] = []
    for chain in chains:
        if not view.is_over(chain):
            return None
        entries += view.accepted(chain, view.rounds(chain))
    return tuple(entries)


def sealed_chains_of(plan: StepPlan, kind: SealKind) -> tuple[Chain, ...]:
    return tuple(chain for chain in plan.chains if chain.sealed_in == kind)


def sealed_chains(view: StepView, kind: SealKind) -> tuple[Chain, ...]:
    return sealed_chains_of(view.plan, kind)


def skips_of(view: StepView, entries: tuple[Record, ...]) -> tuple[Skip, ...]:
    """The partitions in quarantine that these entries lack."""
    there = {(record.task.stage, record.task.part) for record in entries}
    ends = {chain.stages[0]: view.end_of(chain) for chain in sealed_chains(view, MANIFEST)}
    lacking = sorted(
        task
        for task in view.skipped
        if task.step == view.step.number and (task.stage, task.part) not in there and _is_before(task, ends)
    )
    return tuple(view.skipped[task] for task in lacking)


def _is_before(task: TaskKey, ends: Mapping[str, int]) -> bool:
    """Whether a partition is in a round that there is. `ends`: of these, by a chain's first stage."""
    return isinstance(task.part, Partition) and task.part.index < ends.get(task.stage, 0)


def has_copies(view: StepView, entries: tuple[Record, ...]) -> bool:
    """Whether every output has two living holders (or as many as there are nodes on duty, if fewer)."""
    return all(
        len(view.holdings.live_holders(ref.id, view.living)) >= view.copies for each in entries for ref in each.shards
    )


def is_void(view: StepView, seal: Seal) -> bool:
    """Whether what a seal names is gone and missed (`Wait.RETURN`), for a suspicion time, doubled by each
    generation."""
    bound = view.suspicion_s * 2.0 ** min(seal.generation, MAX_DOUBLINGS)
    return view.step.patience.lasts(view.now, Wait.RETURN, seal.id) > bound


def is_missed(view: StepView, manifest: Seal, batch: Batch | None) -> bool:
    """Whether a record of the manifest has no living holder, and training still reads them."""
    lost = bool(view.progress.lost) and any(not view.counts(record) for record in manifest.entries)
    return lost and (batch is None or gradient_cover(view, batch) is None)


def is_read(view: StepView, manifest: Seal | None, batch: Batch | None) -> bool:
    """Whether what chains give training is still asked for. Once there is a manifest only what it names is, and no
    further round, whatever others made of the same partitions."""
    if manifest is None or is_missed(view, manifest, batch):
        return True
    return view.plan.is_carried and batch is not None and gradient_cover(view, batch) is None


def is_update_missed(view: StepView, versions: Versions, update: Seal) -> bool:
    """Whether a slice has no living holder, and no living node got as far as the version."""
    lost = any(not view.counts(record) for record in update.entries)
    return lost and not is_carried(view, versions, update)


# Carrying on: a step of the pipeline that makes several updates does its partitions once, for the first. The manifest
# of each further one names the same outputs, in records that say for which version they are carried: so they are true
# of one chain of versions alone, and whoever does a lost partition again makes the very same record.


def carried_records(manifest: Seal, number: int, version: VersionId) -> Iterator[Record]:
    """The records of `manifest`, as those of the step `number` that begins at `version`."""
    for record in manifest.entries:
        task = replace(record.task, step=number)
        yield Record(task, (version, *record.inputs[1:]), record.outputs, record.groups, record.metrics)


def carried_skips(manifest: Seal, number: int) -> Iterator[Skip]:
    """The partitions that `manifest` lacks, as those of the step `number`."""
    for skip in manifest.skipped:
        yield replace(skip, task=replace(skip.task, step=number))


# Making seals: here the patience with what they wait for starts and ends ---------------------------------------------


def propose_manifest(view: StepView, spec: SpecId, current: Seal | None, batch: Batch | None) -> Seal | None:
    """The manifest that this node should make now, if any: the first, or one more generation of a void one."""
    patience = view.step.patience
    if current is not None:
        patience.follow(view.now, is_missed(view, current, batch), Wait.RETURN, current.id)
        if not is_void(view, current):
            return None
    entries = entries_of(view, sealed_chains(view, MANIFEST))
    if entries is None:
        return None
    if not has_copies(view, entries):
        patience.start(view.now, Wait.COPIES)
        if patience.lasts(view.now, Wait.COPIES) <= SOLE_COPY_AFTER * view.suspicion_s:
            return None  # one holder is enough when waiting did not help
    generation = 0 if current is None else current.generation + 1
    if current is not None and entries == current.entries:
        return None
    turn = f"{MANIFEST}/{generation}"
    patience.start(view.now, Wait.TURN, turn)
    if not is_turn(view, turn):
        return None
    skipped = skips_of(view, entries)
    return Seal(spec, view.step.number, view.trains.id, view.trains.id, MANIFEST, generation, 0, entries, skipped)


def propose_update(
    view: StepView, versions: Versions, spec: SpecId, previous: str, current: Seal | None, batch: Batch | None
) -> Seal | None:
    """The update seal that this node should make now, if any."""
    patience = view.step.patience
    if current is not None:
        patience.follow(view.now, is_update_missed(view, versions, current), Wait.RETURN, current.id)
        if not is_void(view, current):
            return None
    slices = slice_records(view, batch) if batch is not None else ()
    if any(record is None for record in slices):
        return None
    evaluated = entries_of(view, sealed_chains(view, UPDATE))
    if evaluated is None:
        return None
    entries = (*(record for record in slices if record is not None), *evaluated)
    generation = 0 if current is None else current.generation + 1
    if current is not None and entries == current.entries:
        return None
    turn = f"{UPDATE}/{previous}/{generation}"
    patience.start(view.now, Wait.TURN, turn)
    if not is_turn(view, turn):
        return None
    samples = batch.samples if batch is not None else 0
    return Seal(spec, view.step.number, view.trains.id, previous, UPDATE, generation, samples, entries)


def begin_to_settle(view: StepView, seal: Seal) -> bool:
    """Take it upon this node to have a seal kept by the replicas, if it is its turn. True if it took it now."""
    if seal.id in view.step.acks:
        return False
    turn = f"settle/{seal.id}"
    view.step.patience.start(view.now, Wait.TURN, turn)
    if not is_turn(view, turn):
        return False
    view.step.begin_to_settle(seal, view.me)
    view.step.patience.start(view.now, Wait.ACKS, seal.id)
    return True
