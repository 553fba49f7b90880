"""Seals: what goes into one, whose turn it is, which of two counts, and when one is given up."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from itertools import pairwise

import pytest

from dflow_protocols.membership.timing import Timing, answer_s
from dflow_protocols.names import MANIFEST, UPDATE, NodeId, Partition
from dflow_protocols.runs.anti_entropy import REFRESH
from dflow_protocols.simulator.toy import TOY_PARTITIONS
from dflow_protocols.steps.batch import Batch, make_batch
from dflow_protocols.steps.duty import is_orphan, watch_homes
from dflow_protocols.steps.partitions import OpenPartitions
from dflow_protocols.steps.patience import Wait
from dflow_protocols.steps.sealing import (
    SOLE_COPY_AFTER,
    chosen,
    entries_of,
    has_copies,
    is_kept,
    is_missed,
    is_turn,
    is_update_missed,
    is_void,
    propose_manifest,
    propose_update,
    sealed_chains,
)
from dflow_protocols.steps.view import StepView, partition_homes
from dflow_protocols.versions.versions import Versions
from dflow_protocols.wire.steps import Record, Seal
from dflow_protocols.work import ChainWork
from tests.unit.protocols.books import (
    MIB,
    SPEC,
    SUSPICION_S,
    ZERO,
    finished_partition,
    heartbeat,
    later,
    learn,
    record,
    shard,
    version,
    view,
    who,
)

FIRST, SECOND, THIRD = view().succession  # of the step, by hash


def number(node: NodeId) -> int:
    return int(node, 16)


def done(*, me: NodeId = FIRST, without: int | None = None, holders: tuple[int, ...] = (1, 2, 3)) -> StepView:
    """A view at which all partitions (or all but one) of the toy chain are finished."""
    at = view(me=number(me))
    for partition in range(TOY_PARTITIONS):
        if partition != without:
            learn(at, *finished_partition(partition), holders=holders)
    return at


def sealed(at: StepView, generation: int = 0, take: str = "", settled: bool = True) -> Seal:
    """A manifest of one execution, in the books."""
    entries = [each for partition in range(TOY_PARTITIONS) for each in finished_partition(partition, take=take)]
    seal = Seal(SPEC, 0, at.trains.id, at.trains.id, MANIFEST, generation, 0, tuple(entries))
    at.step.keep(seal)
    if settled:
        at.step.settled.add(seal.id)
    return seal


# Making ---------------------------------------------------------------------------------------------------------------


def test_the_first_of_the_succession_seals_once_all_partitions_are_done() -> None:
    """The manifest lists every stage of every partition, so that training reads one chain of each."""
    at = done()
    manifest = propose_manifest(at, SPEC, None, None)
    assert manifest is not None
    assert (manifest.kind, manifest.previous, manifest.generation) == (MANIFEST, ZERO.id, 0)
    expected = [each for partition in range(TOY_PARTITIONS) for each in finished_partition(partition)]
    assert list(manifest.entries) == expected
    assert propose_manifest(done(without=3), SPEC, None, None) is None


def test_the_next_in_line_seals_after_a_suspicion_time_and_at_once_when_the_first_is_dead() -> None:
    """A silent sealer costs a suspicion time a rank, a dead one nothing more than its detection."""
    at = done(me=SECOND)
    assert propose_manifest(at, SPEC, None, None) is None
    assert propose_manifest(later(at, 0.9 * SUSPICION_S), SPEC, None, None) is None
    assert propose_manifest(later(at, 1.0 * SUSPICION_S), SPEC, None, None) is not None
    dead = done(me=SECOND)
    assert propose_manifest(later(dead, 0.0, living=[number(SECOND), number(THIRD)]), SPEC, None, None) is not None


def test_who_copies_a_version_is_no_sealer_to_wait_for() -> None:
    """It has said so, and over a slow link it takes longer than several steps: each would wait a suspicion time."""
    at = done(me=THIRD)
    turn = later(at, 0.9 * SUSPICION_S)
    at.step.patience.start(at.now, Wait.TURN, "manifest/0")
    assert not is_turn(turn, "manifest/0")
    assert not is_turn(replace(turn, behind=frozenset({FIRST})), "manifest/0")
    assert is_turn(replace(turn, behind=frozenset({FIRST, SECOND})), "manifest/0")
    assert is_turn(replace(later(at, 1.1 * SUSPICION_S), behind=frozenset({FIRST})), "manifest/0")


def test_succession_goes_on_past_the_roster_over_all_who_live() -> None:
    """A step whose whole roster died is sealed by a joiner."""
    at = view(me=9, members=(1, 2), living=(9,))
    assert at.succession == (who(9),)
    assert is_turn(at, "manifest/0")


def test_what_has_one_holder_is_sealed_only_when_waiting_did_not_help() -> None:
    """Sealed data that dies with its only holder costs the step's work again."""
    at = done(holders=(number(FIRST),))
    assert propose_manifest(at, SPEC, None, None) is None
    waited = later(at, (SOLE_COPY_AFTER + 0.1) * SUSPICION_S)
    assert propose_manifest(waited, SPEC, None, None) is not None


def test_the_only_node_alive_waits_for_no_second_holder() -> None:
    at = later(done(holders=(number(FIRST),)), 0.0, living=[number(FIRST)])
    assert propose_manifest(at, SPEC, None, None) is not None


# Choosing -------------------------------------------------------------------------------------------------------------


def test_of_two_seals_the_higher_generation_counts_then_the_smaller_id() -> None:
    """Two sealers during a suspicion, or a remade one: all must train on the same."""
    at = done()
    seals = [sealed(at, take="a"), sealed(at, take="b")]
    assert chosen(at, Versions(FIRST), MANIFEST, ZERO.id) == min(seals, key=lambda seal: seal.id)
    remade = sealed(at, generation=1, take="c")
    assert chosen(at, Versions(FIRST), MANIFEST, ZERO.id) == remade


def test_a_seal_on_whose_chain_a_living_node_holds_a_version_wins_over_all() -> None:
    """Others trained on it already: a later generation must not split the mesh."""
    at = done()
    older = sealed(at, take="a")
    sealed(at, generation=1, take="b")
    update = Seal(SPEC, 0, ZERO.id, older.id, UPDATE, 0, 8, ())
    at.step.keep(update)
    made = version("one", ZERO, seal=update)
    versions = Versions(FIRST)
    versions.learn(made)
    versions.observe(SECOND, heartbeat(made))
    assert chosen(at, versions, MANIFEST, ZERO.id) == older
    versions.forget(SECOND)
    assert chosen(at, versions, MANIFEST, ZERO.id) != older


def test_a_seal_is_acted_on_only_when_settled() -> None:
    """Its bytes lie on one node yet: with that node the step would lose what it decided."""
    at = done()
    seal = sealed(at, settled=False)
    assert chosen(at, Versions(FIRST), MANIFEST, ZERO.id) is None
    assert chosen(at, Versions(FIRST), MANIFEST, ZERO.id, settled=False) == seal


def test_a_seal_of_another_version_or_after_another_seal_does_not_count() -> None:
    """After a fork the books may hold both branches' seals."""
    at = done()
    other = version("other")
    seal = replace(sealed(at), parent=other.id, previous=other.id)
    update = Seal(SPEC, 0, ZERO.id, seal.id, UPDATE, 0, 8, ())
    for each in (seal, update):
        at.step.keep(each)
        at.step.settled.add(each.id)
    assert chosen(at, Versions(FIRST), UPDATE, sealed(at).id) is None
    assert chosen(at, Versions(FIRST), UPDATE, seal.id) == update


# Giving up ------------------------------------------------------------------------------------------------------------


def lost(at: StepView, seal: Seal, entry: int) -> Record:
    """Nobody alive holds what this entry made any more."""
    gone = seal.entries[entry]
    for ref in gone.shards:
        at.holdings.failed(0.0, ref.id, (0, 1), [who(number) for number in range(9)], [])
        at.holdings.lose(ref.id)
    return gone


def test_a_manifest_is_void_a_suspicion_time_after_its_data_went_and_was_remade() -> None:
    """One generation more, with the other execution's records of that partition, all from one chain."""
    at = done()
    seal = sealed(at)
    lost(at, seal, 0)
    learn(at, *finished_partition(0, take="again"), holders=(1, 2, 3))
    assert propose_manifest(at, SPEC, seal, None) is None
    remade = propose_manifest(later(at, 1.1 * SUSPICION_S), SPEC, seal, None)
    assert remade is not None
    assert remade.generation == 1
    assert remade.entries[:3] == finished_partition(0, take="again")
    assert remade.entries[3:] == seal.entries[3:]


def test_data_that_comes_back_in_time_voids_nothing() -> None:
    """A holder was suspected and refuted: dropping everybody's work for that would be waste."""
    at = done()
    seal = sealed(at)
    gone = lost(at, seal, 0)
    assert propose_manifest(later(at, 0.0), SPEC, seal, None) is None
    learn(at, gone, holders=(2,))
    assert propose_manifest(later(at, 0.5 * SUSPICION_S), SPEC, seal, None) is None
    lost(at, seal, 0)
    learn(at, *finished_partition(0, take="again"), holders=(1, 2, 3))
    assert propose_manifest(later(at, 1.2 * SUSPICION_S), SPEC, seal, None) is None, "the wait begins anew"


def test_a_manifest_whose_remake_gave_the_same_bytes_stays() -> None:
    """Pure work comes back under the same ids: there is nothing to seal again."""
    at = done()
    seal = sealed(at)
    gone = lost(at, seal, 0)
    propose_manifest(at, SPEC, seal, None)
    learn(at, gone, holders=(1, 2, 3))
    assert propose_manifest(later(at, 5 * SUSPICION_S), SPEC, seal, None) is None


# The update -----------------------------------------------------------------------------------------------------------


def trained(at: StepView) -> tuple[Seal, Batch, list[Record]]:
    """A sealed manifest, its batch, and the records of one block of all leaves and of every slice."""
    manifest = sealed(at)
    assert at.training is not None
    batch = make_batch(manifest, at.training)
    gradient = shard("gradient", 2 * MIB)
    block = record("learn", f"b0-{batch.training.leaves}", [ZERO.id, manifest.id], gradient)
    slices = [
        record("learn", f"s{chunk}-{chunk + 1}", [ZERO.id, manifest.id, gradient.id], shard(f"slice{chunk}", MIB))
        for chunk in range(2)
    ]
    learn(at, block, *slices)
    return manifest, batch, slices


def evaluated(at: StepView) -> list[Record]:
    """Records of what the step evaluates."""
    made = [
        record(stage, f"p{partition}", [at.trains.id], metrics=(("correct", 1.0), ("evaluated", 2.0)))
        for chain in sealed_chains(at, UPDATE)
        for partition in range(chain.partitions)
        for stage in chain.stages
    ]
    learn(at, *made)
    return made


def test_an_update_lists_all_slices_in_order_then_what_was_evaluated() -> None:
    """Who applies it needs nothing else, and the samples are those that the manifest kept."""
    at = done()
    manifest, batch, slices = trained(at)
    assert propose_update(at, Versions(FIRST), SPEC, manifest.id, None, batch) is None, "evaluation is missing"
    held_out = evaluated(at)
    update = propose_update(at, Versions(FIRST), SPEC, manifest.id, None, batch)
    assert update is not None
    assert list(update.entries) == slices + held_out
    assert (update.previous, update.samples) == (manifest.id, 8 * TOY_PARTITIONS)


def test_no_update_is_sealed_while_a_slice_has_no_living_holder() -> None:
    at = done()
    manifest, batch, slices = trained(at)
    evaluated(at)
    at.holdings.drop([slices[1].shards[0].id], [])
    assert propose_update(at, Versions(FIRST), SPEC, manifest.id, None, batch) is None


def test_a_batch_divides_by_what_the_manifest_kept() -> None:
    """Denominators are exact integers of the step, never of a node's share."""
    at = done()
    _, batch, _ = trained(at)
    assert batch.samples == 8 * TOY_PARTITIONS
    assert batch.divisor == 50 * TOY_PARTITIONS
    assert sorted(batch.data) == list(range(TOY_PARTITIONS))


@pytest.mark.parametrize("partition", range(TOY_PARTITIONS))
def test_a_partition_begun_elsewhere_goes_on_where_it_stands(partition: int) -> None:
    """Its home died after two stages: only what is missing runs, on what was made."""
    alone = later(done(without=partition), 0.0, living=[number(FIRST)])
    chain = sealed_chains(alone, MANIFEST)[0]
    learn(alone, *finished_partition(partition)[:2], holders=(number(FIRST),))
    (duty,) = OpenPartitions(chain).due(alone).here
    assert duty.unit.part == Partition(partition)
    assert isinstance(duty.work, ChainWork)
    assert duty.work.stages == ("adv",)
    assert duty.reads == finished_partition(partition)[2].inputs


def test_a_silent_home_keeps_its_work_until_the_orphan_delay() -> None:
    """Its claims show that it is at work; without any, somebody else takes the unit, not all at once."""
    at = view(me=number(FIRST))
    chain = sealed_chains(at, MANIFEST)[0]
    due = OpenPartitions(chain).due(at)
    mine = {duty.unit.part for duty in due.here}
    assert 0 < len(mine) < TOY_PARTITIONS
    watch_homes(at, due)
    at.step.polled(0.5 * SUSPICION_S)
    assert {duty.unit.part for duty in OpenPartitions(chain).due(later(at, 0.9 * SUSPICION_S)).here} == mine
    assert {duty.unit.part for duty in OpenPartitions(chain).due(later(at, 2.1 * SUSPICION_S)).here} == {
        Partition(partition) for partition in range(TOY_PARTITIONS)
    }


@pytest.mark.parametrize("polled", [None, 0.0, 2.05])
def test_nobody_takes_an_orphan_who_did_not_hear_of_it_meanwhile(polled: float | None) -> None:
    """Claims and records are told to replicas: who did not ask one, or has no answer yet, would do again what is done,
    in every mesh that is young."""
    at = view(me=number(FIRST))
    chain = sealed_chains(at, MANIFEST)[0]
    due = OpenPartitions(chain).due(at)
    watch_homes(at, due)
    if polled is not None:
        at.step.polled(polled * SUSPICION_S)
    assert len(OpenPartitions(chain).due(later(at, 2.1 * SUSPICION_S)).here) == len(due.here)


@pytest.mark.parametrize("members", [2, 1_000])
@pytest.mark.parametrize("timing", [Timing.local(), Timing.lan(), Timing.wan()], ids=["local", "lan", "wan"])
def test_a_replica_has_answered_before_it_is_asked_again(timing: Timing, members: int) -> None:
    """A node looks at its step when it asks, and once before it asks again: if an answer took longer than that, no
    orphan would ever be taken."""
    suspicion_s = timing.suspicion_s(members)
    at = replace(view(me=number(FIRST)), suspicion_s=suspicion_s)
    chain = sealed_chains(at, MANIFEST)[0]
    watch_homes(at, OpenPartitions(chain).due(at))
    at.step.polled(2.1 * suspicion_s - REFRESH * answer_s(suspicion_s) / 2)
    assert len(OpenPartitions(chain).due(later(at, 2.1 * suspicion_s)).here) == TOY_PARTITIONS


def test_a_home_that_shows_a_claim_has_the_whole_delay_again() -> None:
    """It was slow and not away: what it was dealt stays its own."""
    at = view(me=number(FIRST))
    chain = sealed_chains(at, MANIFEST)[0]
    watch_homes(at, OpenPartitions(chain).due(at))
    homes = partition_homes(at, chain)
    first, other = next(pair for pair in pairwise(homes) if homes[pair[0]] == homes[pair[1]] != at.me)
    at.step.claim(at.now, homes[first] or at.me, [first], 1.5 * SUSPICION_S)
    at.step.polled(1.4 * SUSPICION_S)
    at_work = later(at, 1.0 * SUSPICION_S)
    watch_homes(at_work, OpenPartitions(chain).due(at_work))
    silent = later(at, 2.1 * SUSPICION_S)
    assert other not in {duty.unit for duty in OpenPartitions(chain).due(silent).here}


@pytest.mark.parametrize("are_many", [False, True])
def test_where_members_are_many_the_delay_begins_when_a_node_is_idle(are_many: bool) -> None:
    """Between two calls it is idle for a moment, and while it works it hears of no claims: it would take, when it is
    done, what others have just finished."""
    at = view(me=number(FIRST))
    chain = sealed_chains(at, MANIFEST)[0]
    due = OpenPartitions(chain).due(at)
    watch_homes(at, due, are_many)
    works = replace(later(at, 1.0 * SUSPICION_S), is_idle=False)
    watch_homes(works, OpenPartitions(chain).due(works), are_many)
    at.step.polled(1.9 * SUSPICION_S)
    taken = OpenPartitions(chain).due(later(at, 2.1 * SUSPICION_S)).here
    assert (len(taken) == len(due.here)) == are_many


def test_a_home_that_was_dead_meanwhile_has_the_whole_delay_again() -> None:
    """Its work was this node's until it came back: what it was silent about before it died says nothing now."""
    at = view(me=number(FIRST))
    chain = sealed_chains(at, MANIFEST)[0]
    due = OpenPartitions(chain).due(at)
    mine = {duty.unit.part for duty in due.here}
    watch_homes(at, due)
    alone = later(at, 1.0 * SUSPICION_S, living=[number(FIRST)])
    watch_homes(alone, OpenPartitions(chain).due(alone))
    back = later(at, 2.1 * SUSPICION_S)
    at.step.polled(1.5 * SUSPICION_S)
    assert {duty.unit.part for duty in OpenPartitions(chain).due(back).here} == mine


def test_entries_are_none_while_one_partition_is_unfinished() -> None:
    at = done(without=2)
    assert entries_of(at, sealed_chains(at, MANIFEST)) is None


def books_of(at: StepView) -> dict[str, object]:
    """All that the step knows, and how much of it changed so far."""
    return {**vars(at.step), "changed": at.step.changed.end, "claims_changed": at.step.claims_changed.end}


def test_what_a_rule_asks_changes_nothing() -> None:
    """Else the order in which two rules are asked would decide when a node seals, or whose work it does."""
    at = done(holders=(number(FIRST),))
    seal = sealed(at)
    chain = sealed_chains(at, MANIFEST)[0]
    unit, home = next(iter(partition_homes(view(me=number(FIRST)), chain).items()))
    at.step.acks[seal.id] = {at.me}
    before = deepcopy(books_of(at))
    for _ in range(2):
        is_turn(at, "manifest/0")
        is_kept(at, seal)
        has_copies(at, seal.entries)
        is_void(at, seal)
        is_missed(at, seal, None)
        is_update_missed(at, Versions(FIRST), seal)
        is_orphan(at, unit, home, frozenset({at.me}))
        OpenPartitions(chain).due(at)
        assert books_of(at) == before


def test_rollouts_are_of_the_version_that_is_read_and_evaluations_of_the_one_that_is_trained() -> None:
    """With several updates under way the two are not the same; a seal still names what it updates."""
    at = replace(done(), reads=version("older"))
    rolls, held = sealed_chains(at, MANIFEST)[0], sealed_chains(at, UPDATE)[0]
    assert (at.source(rolls), at.source(held)) == (version("older"), ZERO)
    assert entries_of(at, (rolls,)) is None, "what was sampled from the trained version does not count"
    read = [each for n in range(TOY_PARTITIONS) for each in finished_partition(n, version("older").id)]
    learn(at, *read, holders=(1, 2, 3))
    assert entries_of(at, (rolls,)) == tuple(read)
