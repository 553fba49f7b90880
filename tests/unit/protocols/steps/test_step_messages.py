"""Whole nodes and what they are told: nothing is stored before its run is known, nothing acknowledged before it is on
disk, and nothing that a member says can break a node or make it believe what cannot be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgpack
import pytest

from dflow_protocols.events import (
    Action,
    CancelRequested,
    Drop,
    Finished,
    NotPersisted,
    Persist,
    Persisted,
    Received,
    Reply,
    Report,
    Send,
    Start,
    Stop,
    Submitted,
    Tick,
)
from dflow_protocols.names import (
    NodeId,
    Partition,
    RecordId,
    RunId,
    SealId,
    ShardId,
    ShardRef,
    SpecId,
    TaskKey,
    part_of,
    run_id,
)
from dflow_protocols.run_state import status as runs
from dflow_protocols.simulator.goals import node
from dflow_protocols.simulator.toy import two_steps
from dflow_protocols.steps.roster import make_roster
from dflow_protocols.steps.step import digest_of
from dflow_protocols.wire.books import TaskClaim
from dflow_protocols.wire.frame import Frame
from dflow_protocols.wire.heartbeat import Delta, Heartbeat, Mark
from dflow_protocols.wire.steps import (
    BucketGet,
    BucketPut,
    CheckpointPut,
    ClaimPut,
    FailurePut,
    Head,
    Header,
    HeaderPut,
    Held,
    Keep,
    Kept,
    RecordPut,
    RecordsAsk,
    RecordsHeld,
    RosterPut,
    RunAck,
    RunGet,
    RunPut,
    RunStates,
    Seal,
    SealAck,
    SealNames,
    SealPut,
)
from dflow_protocols.wire.steps import Failure as TaskFailure
from dflow_protocols.work import Done, Made
from tests.unit.protocols.books import SPEC, finished_partition, record, shard, version, who
from tests.unit.protocols.midway import Midway, formed, opened

STRANGE = RunId("f" * 32)


# Unknown runs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        RecordPut(STRANGE, finished_partition(0)),
        ClaimPut(STRANGE, 0, (TaskKey(0, "roll", Partition(0)),)),
        BucketGet(STRANGE, 0, "d", "d", "d"),
        Frame(Delta(Mark(1, 1), 0, None, (Heartbeat(STRANGE, Head(version("one").id, 1, 8), None, None),)), ()),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_message_of_an_unknown_run_is_answered_by_asking_what_it_is(message: Any) -> None:
    """Nothing of it is stored before: a run that was forgotten or made up costs no memory. Asked once for a while."""
    world = formed()
    host, peer = world.hosts[1], world.id_of(2)
    now = host.clock.read(world.now)
    first = opened(node(host).handle(now, Received(peer, message)))
    assert Send(peer, RunGet(STRANGE)) in first
    assert node(host).runs == {}
    assert RunGet not in [
        type(action.message)
        for action in opened(node(host).handle(now, Received(peer, message)))
        if isinstance(action, Send)
    ]


def put(state: str = runs.ACTIVE, **outcome: Any) -> RunPut:
    """The toy run as a member tells of it."""
    client, nonce = who(7), "n"
    name = run_id(two_steps().text_id, client, nonce)
    roster = make_roster(0, 0, [who(1)], [who(1)])
    result = msgpack.packb(outcome) if outcome else b""
    return RunPut(name, state, 0, two_steps().canonical(), "/spec", (), client, nonce, roster, result, True)


def test_a_run_is_on_disk_before_it_is_acknowledged() -> None:
    """The client was promised that two nodes have it on disk: a crash after the ack must not forget it."""
    world = formed()
    host, peer = world.hosts[1], world.id_of(2)
    now = host.clock.read(world.now)
    for state in (runs.ACTIVE, runs.CANCELLED):
        told = put(state)
        actions = opened(node(host).handle(now, Received(peer, told)))
        written = Persist(f"runs/{told.run}", runs.dump(told))
        assert actions.index(written) < actions.index(Send(peer, RunAck(told.run, state, 0)))


def test_what_the_disk_did_not_take_is_acknowledged_only_once_it_did() -> None:
    """A repeat of a status that is known is not written again: it must not be acknowledged on that account."""
    world = formed()
    host, peer = world.hosts[1], world.id_of(2)
    now = host.clock.read(world.now)
    told = put(runs.ACTIVE)
    ack = Send(peer, RunAck(told.run, runs.ACTIVE, 0))
    node(host).handle(now, Received(peer, told))
    node(host).handle(now, NotPersisted(f"runs/{told.run}"))
    assert ack not in opened(node(host).handle(now, Received(peer, told)))
    node(host).handle(now, Persisted(f"runs/{told.run}"))
    assert ack in opened(node(host).handle(now, Received(peer, told)))


def test_a_run_that_a_lone_node_cannot_keep_is_taken_back_with_all_that_it_began() -> None:
    """Its client is told no, so nothing of it may run, or be found after a restart."""
    world = formed(1)
    host = world.hosts[0]
    now = host.clock.read(world.now)
    actions = opened(node(host).handle(now, Submitted(1, two_steps().canonical(), "/spec", who(7), "n")))
    (kept,) = (action for action in actions if isinstance(action, Persist))
    (answer,) = (action for action in actions if isinstance(action, Reply))
    assert kept.or_never
    assert answer.otherwise is not None
    began = [action.call for action in actions if isinstance(action, Start)]
    actions = opened(node(host).handle(now, NotPersisted(kept.key, True)))
    assert node(host).runs == {}
    assert [action.call for action in actions if isinstance(action, Stop)] == began
    assert Persist(kept.key, b"") in actions


def test_a_status_that_is_known_is_acknowledged_without_writing_it_again() -> None:
    """Repeats are how statuses survive loss; a disk write each would be dear."""
    world = formed()
    host, peer = world.hosts[1], world.id_of(2)
    now = host.clock.read(world.now)
    node(host).handle(now, Received(peer, put(runs.CANCELLED)))
    for late in (put(runs.CANCELLED), put(runs.ACTIVE)):
        actions = opened(node(host).handle(now, Received(peer, late)))
        assert Send(peer, RunAck(late.run, runs.CANCELLED, 0)) in actions
        assert not [action for action in actions if isinstance(action, Persist)]


@pytest.mark.parametrize(
    "lie",
    [
        replace(put(), spec=b"no spec"),
        replace(put(), nonce="another"),
        replace(put(), run=STRANGE),
        replace(put(), outcome=b"\xc1"),
        replace(put(), state="resting"),
    ],
    ids=["spec", "nonce", "run", "outcome", "state"],
)
def test_a_run_that_is_not_what_its_id_says_is_refused(lie: RunPut) -> None:
    """One report, nothing kept, nothing acknowledged."""
    world = formed()
    host, peer = world.hosts[1], world.id_of(2)
    actions = opened(node(host).handle(host.clock.read(world.now), Received(peer, lie)))
    assert [action.name for action in actions if isinstance(action, Report)] == ["run.refused"]
    assert not [action for action in actions if isinstance(action, Persist)]
    assert node(host).runs == {}


def test_an_end_that_is_unknown_here_is_asked_for(midway: Midway) -> None:
    """A member that was away while a run was cancelled learns it from the first one that greets it."""
    told = midway.tell(RunStates(((midway.run, runs.CANCELLED, "x"),)))
    assert Send(midway.peer, RunGet(midway.run)) in told


def test_a_cancelled_run_stops_and_frees_everything_at_once(midway: Midway) -> None:
    """Whoever cancels wants the slots back, on every node that hears of it."""
    run = midway.node.runs[midway.run]
    midway.tell(replace(run.status, state=runs.CANCELLED, acknowledge=False))
    assert (run.state.calls, run.state.steps, run.state.holdings.all_here()) == ({}, {}, set())
    before = run.status
    midway.tell(RecordPut(midway.run, finished_partition(0)))
    midway.tell(replace(before, state=runs.ACTIVE))
    assert run.status == before
    assert run.state.steps == {}


def test_a_client_that_cancels_what_is_unknown_is_told_so() -> None:
    world = formed()
    host = world.hosts[0]
    actions = node(host).handle(host.clock.read(world.now), CancelRequested(5, STRANGE))
    (reply,) = [action for action in actions if isinstance(action, Reply)]
    assert (reply.request, reply.ok) == (5, False)
    assert STRANGE in reply.value["what"]


# What members say of a run --------------------------------------------------------------------------------------------


def test_books_that_are_the_same_are_not_sent_again(midway: Midway) -> None:
    """Everybody who waits polls: an answer costs the step's records and seals."""
    step = midway.node.runs[midway.run].state.step(0)
    settled, claims, records = step.settled_digest(), step.claims_digest(midway.now), step.records_digest()

    def answers(settled: str, claims: str, records: str) -> list[type]:
        told = midway.tell(BucketGet(midway.run, 0, settled, claims, records))
        return [type(each.message) for each in told if isinstance(each, Send) and each.to == midway.peer]

    assert BucketPut not in answers(settled, claims, records)
    assert answers("other", claims, records) == [RosterPut]
    assert answers(settled, "other", "") == [BucketPut]
    assert answers("other", "other", "other")[:2] == [RosterPut, BucketPut]


def test_only_what_was_not_read_of_a_nodes_books_comes(midway: Midway) -> None:
    """Who waits asks again and again, and at each time a few of thousands of records are new."""
    step = midway.node.runs[midway.run].state.step(0)
    midway.tell(RecordPut(midway.run, finished_partition(0)))
    (whole,) = pages(midway.tell(BucketGet(midway.run, 0, "", "", "other")), midway.peer)
    assert whole.page is not None
    assert [held.record for held in whole.records] == step.all_records()
    assert not pages(midway.tell(BucketGet(midway.run, 0, "", "", "other", read=whole.page)), midway.peer)
    midway.tell(RecordPut(midway.run, finished_partition(1)))
    (rest,) = pages(midway.tell(BucketGet(midway.run, 0, "", "", "other", read=whole.page)), midway.peer)
    assert {held.record for held in rest.records} == set(step.all_records()) - {held.record for held in whole.records}
    of_other_books = replace(whole.page, books="of an earlier life")
    (again,) = pages(midway.tell(BucketGet(midway.run, 0, "", "", "other", read=of_other_books)), midway.peer)
    assert [held.record for held in again.records] == step.all_records()


def pages(actions: list[Action], to: NodeId) -> list[BucketPut]:
    sent = [each.message for each in actions if isinstance(each, Send) and each.to == to]
    return [message for message in sent if isinstance(message, BucketPut)]


def test_a_seal_that_the_asker_has_is_not_sent_again(midway: Midway) -> None:
    """A long step's manifest has megabytes, and who waits for its update asks many times."""
    midway.world.expect(60.0, lambda: bool(_settled(midway)), "a seal is settled")
    number, seals = _settled(midway)[0]

    def told(*known: SealId) -> list[type]:
        actions = midway.tell(BucketGet(midway.run, number, "other", "", "", seals=known))
        return [type(each.message) for each in actions if isinstance(each, Send) and each.to == midway.peer]

    assert SealPut in told()
    assert told(*seals) == [RosterPut]


def _settled(midway: Midway) -> list[tuple[int, tuple[SealId, ...]]]:
    steps = midway.node.runs[midway.run].state.steps
    return [(number, tuple(step.settled)) for number, step in steps.items() if step.settled and step.roster is not None]


def parts(part: str) -> TaskKey:
    return TaskKey(0, "roll", part_of(part))


LIES: dict[str, Callable[[RunId, NodeId], Any]] = {
    "record of no part": lambda run, me: RecordPut(run, (record("roll", "q7", ["x"]),)),
    "own records of a step too far": lambda run, me: RecordsHeld(run, 2**40, "d" * 64, (RecordId("e" * 64),)),
    "records asked for of a step too far": lambda run, me: RecordsAsk(run, 2**40, (RecordId("e" * 64),)),
    "record of a step too far": lambda run, me: RecordPut(run, (record("roll", "p0", ["x"], step=2**40),)),
    "record of a huge part": lambda run, me: RecordPut(run, (record("roll", "p9999999", ["x"]),)),
    "books of no part": lambda run, me: BucketPut(run, 0, (Held(record("roll", "", ["x"]), (me,)),), ()),
    "claims of no part": lambda run, me: ClaimPut(run, 0, (parts("apply/../x"), parts("b1"), parts("s1-"))),
    "claims of another step": lambda run, me: ClaimPut(run, 0, (TaskKey(1, "roll", Partition(0)),)),
    "claims in this node's name": lambda run, me: BucketPut(run, 0, (), (TaskClaim(parts("p3"), me),)),
    "seal of another spec": lambda run, me: SealPut(run, replace(seal(), spec=SpecId(SPEC[::-1])), True, (), None),
    "seal of another stage": lambda run, me: SealPut(run, seal(record("no", "p0", ["x"])), True, (), None),
    "seal of a later step's record": lambda run, me: SealPut(
        run, seal(record("roll", "p0", [], step=1)), True, (), None
    ),
    "names of a seal of a step too far": lambda run, me: SealNames(run, replace(seal(), step=2**40), (), True, None),
    "names of a seal whose records are not here": lambda run, me: SealNames(
        run, seal(), (RecordId("e" * 64),), True, None
    ),
    "seal of a step too far": lambda run, me: SealPut(run, replace(seal(), step=2**40), True, (), None),
    "acknowledgement of no seal": lambda run, me: SealAck(run, 0, SealId("s" * 64)),
    "acknowledgement in no step": lambda run, me: SealAck(run, 77, SealId("s" * 64)),
    "header of a step past the end": lambda run, me: HeaderPut(run, Header(None, 99, 0, "s" * 64, ()), (), None, None),
    "roster of a step too far": lambda run, me: RosterPut(run, make_roster(2**40, 0, [me], [me])),
}


def seal(*entries: Any) -> Seal:
    return Seal(SPEC, 0, version("zero").id, version("zero").id, "manifest", 0, 0, entries)


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_what_cannot_be_changes_nothing(midway: Midway, lie: Callable[[RunId, NodeId], Any]) -> None:
    """A member of another release, or a broken one, says it; the node goes on as if it had not."""
    before = midway.books()
    midway.tell(lie(midway.run, midway.node.me))
    assert midway.books() == before


def test_failures_that_a_member_tells_of_itself_end_the_run(midway: Midway) -> None:
    """Each node knows of its own failures only, and is believed about no others; the rule needs those of all."""
    failures = tuple(
        TaskFailure(parts("p0"), midway.peer, attempt, "user", "d" * 64, "division by zero") for attempt in (1, 2)
    )
    hearsay = tuple(replace(failure, node=who(9)) for failure in failures)
    midway.tell(FailurePut(midway.run, 0, (*hearsay, failures[0])))
    assert midway.node.runs[midway.run].is_active
    actions = midway.tell(FailurePut(midway.run, 0, failures[1:]))
    run = midway.node.runs[midway.run]
    assert run.summary()["state"] == runs.FAILED
    assert run.summary()["error"] == "0/roll/p0 failed: division by zero"
    assert run.state.persist() in actions


def test_a_leaving_member_is_told_when_its_shards_are_safe(midway: Midway) -> None:
    """It waits for that before it goes; until then this node fetches."""
    ref = shard("only copy")
    assert Send(midway.peer, Kept(midway.run, (ref.id,))) not in midway.tell(Keep(midway.run, (ref,)))
    holdings = midway.node.runs[midway.run].state.holdings
    assert ref.id in holdings.all_here()
    holdings.fetched(midway.now, ref.id, (0, 1))
    assert Send(midway.peer, Kept(midway.run, (ref.id,))) in midway.tell(Keep(midway.run, (ref,)))


def test_two_who_leave_with_equal_bytes_are_both_told_that_these_are_safe(midway: Midway) -> None:
    """Each waits for the word; one that another's request had pushed out would wait until its patience ends."""
    ref, run = shard("only copies"), midway.node.runs[midway.run]
    midway.tell(Keep(midway.run, (ref,)))
    other = midway.world.id_of(0)
    midway.node.handle(midway.now, Received(other, Keep(midway.run, (ref,))))
    run.state.holdings.fetched(midway.now, ref.id, (0, 1))
    told = run.refresh(midway.now, midway.node._mesh(midway.now), at_once=True)
    assert all(Send(member, Kept(midway.run, (ref.id,))) in told for member in (other, midway.peer))


def test_who_says_that_it_keeps_a_shard_counts_as_a_holder(midway: Midway) -> None:
    ref = shard("handed over")
    midway.tell(Kept(midway.run, (ref.id,)))
    living = midway.node.membership.alive()
    assert midway.node.runs[midway.run].state.holdings.live_holders(ref.id, living) == (midway.peer,)


def test_records_that_a_replica_has_are_not_sent_again_and_those_that_it_lacks_are(midway: Midway) -> None:
    """A step may wait for hours, and its records are megabytes; yet any of them may have been lost."""
    first, second = finished_partition(0)[0], finished_partition(1)[0]
    ids = (first.id, second.id)
    midway.tell(RecordPut(midway.run, (first,)))
    said = RecordsHeld(midway.run, 0, digest_of(ids), ())

    def asked(message: Any) -> list[Any]:
        told = [action.message for action in midway.tell(message) if isinstance(action, Send)]
        return [each for each in told if isinstance(each, RecordsAsk)]

    assert asked(said) == [RecordsAsk(midway.run, 0, ())]
    assert asked(replace(said, records=ids)) == [RecordsAsk(midway.run, 0, (second.id,))]
    assert asked(RecordPut(midway.run, (second,))) == []
    assert asked(said) == []
    midway.node.runs[midway.run].state.holdings.failed(0.0, first.shards[0].id, (0, 1), [midway.peer], [])
    assert asked(said) == [RecordsAsk(midway.run, 0, ())], "it may hold again what it was found to lack"
    assert asked(replace(said, records=ids)) == []
    assert asked(said) == []
    assert asked(replace(said, digest=digest_of(ids[:1]), records=ids[:1])) == []
    assert asked(replace(said, digest=digest_of(ids[:1]))) == [], "one that it gave up is told of no more"


def test_what_a_node_is_the_second_to_hold_is_said_before_its_maker_could_be_found_dead(midway: Midway) -> None:
    """Word of that waits while partitions are done; to who hears of the death first they would be lost, and due."""
    run, there = midway.node.runs[midway.run], midway.node._mesh(midway.now)
    run.refresh(midway.now, there, at_once=True)
    position, record = run.state.position, finished_partition(0)[0]
    assert position is not None
    run.outbox.copied(run.state.view(midway.now, there, position), [record])
    said = [action.message for action in run.refresh(midway.now, there) if isinstance(action, Send)]
    assert RecordsHeld(midway.run, 0, "", (record.id,)) in said


def test_what_a_node_made_is_named_to_who_asks_and_sent_to_who_lacks_it(midway: Midway) -> None:
    """Said again by a digest alone, while a step waits."""
    run = midway.node.runs[midway.run]
    midway.world.expect(30.0, lambda: bool(run.state.step(0).mine), "it has made something")
    again = run.refresh(midway.now, midway.node._mesh(midway.now), at_once=True)
    said = [action.message for action in again if isinstance(action, Send) and action.to == midway.peer]
    assert not any(isinstance(message, RecordPut) for message in said)
    (held,) = [message for message in said if isinstance(message, RecordsHeld) and message.digest]
    own = tuple(run.state.step(0).mine)
    assert held == RecordsHeld(midway.run, 0, digest_of(own), ())
    assert Send(midway.peer, replace(held, records=own)) in midway.tell(RecordsAsk(midway.run, 0, ()))
    record = run.state.step(0).mine[own[0]]
    strange = finished_partition(0)[0].id
    told = midway.tell(RecordsAsk(midway.run, 0, (own[0], strange)))
    assert Send(midway.peer, RecordPut(midway.run, (record,))) in told


def test_the_same_record_twice_is_one_record_with_two_holders(midway: Midway) -> None:
    """Repeats heal losses; they must be free of effect else."""
    made = finished_partition(0)[0]
    run = midway.node.runs[midway.run]
    midway.tell(RecordPut(midway.run, (made,)))
    known = run.state.step(0).records_digest()
    midway.tell(RecordPut(midway.run, (made,)))
    midway.tell(BucketPut(midway.run, 0, (Held(made, (midway.world.id_of(0),)),), ()))
    assert run.state.step(0).records_digest() == known
    living = midway.node.membership.alive()
    expected = sorted([midway.peer, midway.world.id_of(0)])
    assert list(run.state.holdings.live_holders(made.shards[0].id, living)) == expected


def test_who_still_works_on_a_run_that_has_ended_is_told_so_at_once(midway: Midway) -> None:
    """It missed the end, and nobody answers it. Where it stands it has said before, so its frames say that no more."""
    midway.node.handle(midway.now, CancelRequested(1, midway.run))
    asked, now = BucketGet(midway.run, 0, "", "", ""), midway.now
    (told,) = [action for action in midway.tell(asked) if isinstance(action, Send)]
    assert (told.to, told.message.run, told.message.state) == (midway.peer, midway.run, "cancelled")
    assert midway.tell(asked) == [], "once in a while is enough"
    midway.world.run(midway.node.membership.suspicion_s())
    assert midway.now > now
    assert midway.tell(CheckpointPut(midway.run, 0, ())) == [], "who has ended it as well says that"


def test_a_restarted_node_knows_its_runs_from_disk_and_makes_nothing_before_it_heard_of_others(midway: Midway) -> None:
    """Its memory is gone, the mesh's is not: version 0 made anew would be work for nothing."""
    disk = dict(midway.host.disk.values)
    assert f"runs/{midway.run}" in disk
    midway.host.lose_memory()
    midway.world.start(midway.host)
    reborn = midway.node
    assert reborn.runs[midway.run].is_active
    reborn.handle(midway.now, Tick())
    assert reborn.runs[midway.run].state.calls == {}


def test_what_a_call_made_that_was_given_up_meanwhile_is_freed(midway: Midway) -> None:
    """The slot may have finished before it heard that the run was cancelled; nobody else knows of those shards."""
    run = midway.node.runs[midway.run]
    call = next(iter(run.state.calls))
    midway.node.handle(midway.now, CancelRequested(1, midway.run))
    late = ShardRef(ShardId("e" * 64), 8)
    actions = midway.node.handle(midway.now, Finished(call, Done((Made("roll", (("rollout", late),)),))))
    assert Drop(midway.run, (late.id,)) in actions
