"""Story, turn by turn: events and actions in, entries out; and the order in which several nodes' entries are told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dflow_protocols.events import (
    Action,
    Began,
    Broke,
    Drop,
    Event,
    Finished,
    Received,
    Send,
    Shed,
    Start,
    Stop,
    Tick,
    Trim,
)
from dflow_protocols.names import Block, NodeId, Once, Partition, RunId, ShardId, ShardRef, SpecId, TaskKey, VersionId
from dflow_protocols.pipeline.plan import plan
from dflow_protocols.run_state.origin import home_of
from dflow_protocols.simulator.toy import two_steps
from dflow_protocols.story import Entry, Story, What, in_order
from dflow_protocols.wire.frame import Frame
from dflow_protocols.wire.steps import (
    BucketPut,
    ClaimPut,
    Held,
    Record,
    RecordPut,
    Roster,
    RosterPut,
    Seal,
    SealPut,
    StealAsk,
    StealGrant,
    Stolen,
)
from dflow_protocols.work import ChainWork, Done, Failed, Made, Origin

RUN = RunId("r" * 32)
ME, PEER, THIRD = (NodeId(letter * 32) for letter in "abc")
UNIT = TaskKey(0, "roll", Partition(3))
SHARD = ShardRef(ShardId("5" * 64), 8)
RECORD = Record(UNIT, (), (("tokens", SHARD),), (), ())
SEAL = Seal(SpecId("s"), 0, VersionId("v"), "v", "manifest", 0, 4, (RECORD,))
WORK = ChainWork(0, ("roll",), 3, ())
START = Start(7, RUN, UNIT, WORK, origin=Origin.STOLEN)


def send(message: Any, *to: NodeId) -> list[Action]:
    return [Send(node, Frame(None, (message,))) for node in to]


def heard(message: Any, source: NodeId = PEER) -> Event:
    return Received(source, Frame(None, (message,)))


def told(*turns: tuple[Event, list[Action]]) -> list[Entry]:
    """The story of turns 1, 2, ..., a second apart."""
    story = Story(ME)
    for number, (event, actions) in enumerate(turns, 1):
        story.take(number, float(number), [event], actions)
    return story.of(RUN)


def test_what_ends_a_call_names_the_turn_that_began_it() -> None:
    """An answer that comes an hour later is joined with the decision that asked for it."""
    started = Entry(1, 1.0, What.STARTED, RUN, (UNIT,), detail="stolen")
    done = Done((Made("roll", (("tokens", SHARD),)),))
    finished = Entry(3, 3.0, What.FINISHED, RUN, (UNIT,), began=1)
    assert told((Tick(), [START]), (Tick(), []), (Finished(7, done), [])) == [started, finished]
    began = Entry(2, 2.0, What.BEGAN, RUN, (UNIT,), began=1)
    assert told((Tick(), [START]), (Began(7), []), (Finished(7, done), [])) == [started, began, finished]
    assert told((Tick(), [START]), (Began(7), []), (Began(7), [])) == [started, began]
    broke = Entry(2, 2.0, What.BROKE, RUN, (UNIT,), began=1, detail="user: no such word")
    assert told((Tick(), [START]), (Broke(7, Failed("user", "no such word")), [])) == [started, broke]
    stopped = Entry(2, 2.0, What.STOPPED, RUN, (UNIT,), began=1)
    assert told((Tick(), [START]), (Tick(), [Stop(7)]), (Finished(7, done), [])) == [started, stopped]


def test_a_block_that_is_cut_short_tells_before_which_leaf() -> None:
    """The rest of it goes on elsewhere: whoever asks for one of its later leaves sees where that was given away."""
    block = TaskKey(0, "learn", Block(0, 4))
    start = replace(START, task=block)
    started = Entry(1, 1.0, What.STARTED, RUN, (block,), detail="stolen")
    trimmed = Entry(2, 2.0, What.TRIMMED, RUN, (block,), began=1, detail="before leaf 2")
    assert told((Tick(), [start]), (Tick(), [Trim(7, 2)])) == [started, trimmed]


def test_a_theft_is_told_on_both_sides_by_its_request() -> None:
    """The number of the request is what both messages carry."""
    ask = StealAsk(RUN, 99, VersionId("v"), (), "")
    grant = StealGrant(RUN, 99, VersionId("v"), (Stolen(UNIT, PEER),))
    asked = Entry(1, 1.0, What.ASKED, RUN, (UNIT,), (PEER,), "99")
    stolen = Entry(3, 3.0, What.STOLEN, RUN, (UNIT,), (PEER,), "99")
    thief = told((Tick(), send(ask, PEER)), (Tick(), send(ask, PEER)), (heard(grant), []))
    assert thief == [asked, stolen]
    lent = Entry(1, 1.0, What.LENT, RUN, (UNIT,), (PEER,), "99")
    assert told((heard(ask), send(grant, PEER)), (heard(ask), send(grant, PEER))) == [lent]


def test_a_claim_that_is_renewed_is_told_once() -> None:
    """Claims are renewed twice a lease for as long as a call runs; a ring full of them would tell nothing else."""
    claim = ClaimPut(RUN, 0, (UNIT,))
    more = ClaimPut(RUN, 0, (UNIT, TaskKey(0, "roll", Partition(4))))
    claimed = Entry(1, 1.0, What.CLAIMED, RUN, (UNIT,), (PEER, THIRD))
    rest = Entry(3, 3.0, What.CLAIMED, RUN, (TaskKey(0, "roll", Partition(4)),), (PEER,))
    turns: list[tuple[Event, list[Action]]] = [(Tick(), send(claim, PEER, THIRD)), (Tick(), send(claim, PEER))]
    assert told(*turns, (Tick(), send(more, PEER))) == [claimed, rest]
    assert told((heard(claim), []), (heard(claim), [])) == [Entry(1, 1.0, What.CLAIM_HEARD, RUN, (UNIT,), (PEER,))]
    nothing = ClaimPut(RUN, 0, ())
    again = [entry.cause for entry in told((heard(claim), []), (heard(nothing), []), (heard(claim), []))]
    assert again == [1, 3]


def test_records_and_seals_are_told_by_their_ids_once() -> None:
    """They are put again while a step waits, and handed on to who asks."""
    put = RecordPut(RUN, (RECORD,))
    recorded = Entry(1, 1.0, What.RECORDED, RUN, (UNIT,), (PEER, THIRD), records=(RECORD.id,))
    assert told((Tick(), send(put, PEER, THIRD)), (Tick(), send(put, THIRD))) == [recorded]
    was_heard = Entry(1, 1.0, What.RECORD_HEARD, RUN, (UNIT,), (PEER,), records=(RECORD.id,))
    bucket = BucketPut(RUN, 0, (Held(RECORD, (PEER,)),), ())
    assert told((heard(put), []), (heard(bucket), []), (heard(put), [])) == [was_heard]
    proposal, settled = SealPut(RUN, SEAL, False, (), None), SealPut(RUN, SEAL, True, (), None)
    common: dict[str, Any] = {"join": SEAL.id, "records": (RECORD.id,), "detail": "manifest, generation 0"}
    assert told((Tick(), send(proposal, PEER)), (Tick(), send(settled, PEER))) == [
        Entry(1, 1.0, What.PROPOSED, RUN, (UNIT,), (PEER,), **common),
        Entry(2, 2.0, What.SEALED, RUN, (UNIT,), (PEER,), **common),
    ]
    assert told((heard(proposal), []), (heard(settled), []), (Tick(), send(settled, THIRD))) == [
        Entry(1, 1.0, What.KEPT, RUN, (UNIT,), (PEER,), **common),
        Entry(2, 2.0, What.SEAL_HEARD, RUN, (UNIT,), (PEER,), **common),
    ]


def test_what_is_dropped_or_shed_is_told_of_its_task() -> None:
    """Shards are named by their bytes; people ask for tasks."""
    put = heard(RecordPut(RUN, (RECORD,)))
    entries = told((put, []), (Shed(RUN, SHARD.id), []), (Tick(), [Drop(RUN, (SHARD.id, ShardId("9" * 64)))]))
    assert entries[1:] == [
        Entry(2, 2.0, What.SHED, RUN, (UNIT,)),
        Entry(3, 3.0, What.DROPPED, RUN, (UNIT,)),
    ]


@pytest.mark.parametrize(
    ("part", "asked"), [(Block(0, 4), Block(2, 3)), (Block(2, 3), Block(0, 4)), (Block(0, 4), Block(2, 6))]
)
def test_a_leaf_finds_its_block_and_a_block_its_leaves(part: Block, asked: Block) -> None:
    """Leaves change hands alone and are computed together."""
    story = Story(ME)
    story.take(1, 1.0, [Tick()], [replace(START, task=TaskKey(0, "learn", part))])
    assert story.of(RUN, [TaskKey(0, "learn", asked)]) == story.of(RUN)
    assert story.of(RUN, [TaskKey(0, "learn", Block(6, 8))]) == []
    assert story.of(RUN, [TaskKey(1, "learn", asked)]) == []


def test_of_a_seal_only_what_was_asked_for_is_told() -> None:
    """A manifest names hundreds of tasks."""
    other = replace(RECORD, task=TaskKey(0, "roll", Partition(4)))
    story = Story(ME)
    seal = replace(SEAL, entries=(other, RECORD))
    story.take(1, 1.0, [heard(SealPut(RUN, seal, True, (), None))], [])
    [entry] = story.of(RUN, [UNIT])
    assert (entry.tasks, entry.records) == ((UNIT,), (RECORD.id,))


def test_a_full_ring_forgets_the_oldest_and_says_until_when() -> None:
    """Bounded by what entries name, as one may name thousands; what others say pushes out no act of its own."""
    story = Story(ME, own_room=2, heard_room=2)
    for number in range(1, 5):
        story.take(number, float(number), [Tick()], [replace(START, call=number)])
    assert [entry.cause for entry in story.of(RUN)] == [3, 4]
    assert story.forgotten == 2.0
    story.take(5, 5.0, [heard(ClaimPut(RUN, 0, tuple(TaskKey(0, "roll", Partition(n)) for n in range(9))))], [])
    assert [entry.cause for entry in story.of(RUN)] == [3, 4, 5]


def test_a_deal_follows_from_the_roster_that_passed() -> None:
    """Nobody sends who is to do what: everybody derives it, and so does the story."""
    steps = plan(two_steps(), 0)
    roster = Roster(0, 0, (ME, PEER), (ME, PEER), (1, 1))
    story = Story(ME)
    story.take(1, 1.0, [heard(RosterPut(RUN, roster))], [])
    homes = {home_of(RUN, TaskKey(0, "score", Partition(index)), steps, roster) for index in range(5)}
    assert homes == {ME, PEER}
    home = home_of(RUN, UNIT, steps, roster)
    assert home is not None
    assert story.dealt(RUN, UNIT, steps) == [Entry(1, 1.0, What.DEALT, RUN, (UNIT,), (home,), roster.id)]
    assert home_of(RUN, TaskKey(0, "learn", Once("apply")), steps, roster) is None


def entry(cause: int, at: float, what: What, *peers: NodeId, join: str = "", **more: Any) -> Entry:
    return Entry(cause, at, what, RUN, (UNIT,), peers, join, **more)


def test_nothing_is_told_before_what_made_it_happen_whatever_clocks_say() -> None:
    """The thief's clock is an hour slow: the theft is told after the request and the loan all the same (Lamport)."""
    victim = [entry(4, 3600.0, What.LENT, PEER, join="9"), entry(9, 3607.0, What.RECORD_HEARD, PEER, records=("x",))]
    thief = [
        entry(1, 1.0, What.ASKED, ME, join="9"),
        entry(2, 2.0, What.STOLEN, ME, join="9"),
        entry(3, 3.0, What.RECORDED, ME, records=("x",)),
    ]
    lines = in_order({ME: victim, PEER: thief})
    whats = [each.what for _, each in lines]
    assert whats == [What.ASKED, What.LENT, What.STOLEN, What.RECORDED, What.RECORD_HEARD]


def test_without_a_join_clocks_decide() -> None:
    """Two nodes that never spoke of it."""
    mine, other = [entry(1, 5.0, What.STARTED)], [entry(1, 4.0, What.STARTED)]
    assert in_order({ME: mine, PEER: other}) == [(PEER, other[0]), (ME, mine[0])]


def test_a_node_that_forgot_its_beginning_does_not_hold_up_the_story() -> None:
    """What is left may look as if two things followed from each other."""
    mine = [entry(1, 1.0, What.CLAIM_HEARD, PEER), entry(2, 2.0, What.CLAIMED, PEER)]
    other = [entry(1, 1.5, What.CLAIM_HEARD, ME), entry(2, 2.5, What.CLAIMED, ME)]
    assert len(in_order({ME: mine, PEER: other})) == 4


def test_a_deal_that_all_nodes_derived_alike_is_told_once() -> None:
    """Each of a hundred nodes knows it."""
    deals = {node: [entry(1, at, What.DEALT, THIRD, join="roster")] for node, at in ((ME, 1.0), (PEER, 0.5))}
    assert in_order(deals) == [(PEER, deals[PEER][0])]


def test_an_answer_to_who_asked_for_a_seal_makes_nobody_its_maker() -> None:
    """Settled seals are handed on by whoever has them."""
    settled = SealPut(RUN, SEAL, True, (), None)
    whats = [each.what for each in told((heard(settled), []), (Tick(), send(settled, THIRD)))]
    assert whats == [What.SEAL_HEARD]


def test_what_a_node_made_is_no_news_to_it() -> None:
    """Books that are asked for name the asker's own records and seals, too."""
    settled, bucket = SealPut(RUN, SEAL, True, (), None), BucketPut(RUN, 0, (Held(RECORD, (ME,)),), ())
    made = (Tick(), [*send(RecordPut(RUN, (RECORD,)), PEER), *send(settled, PEER)])
    whats = [each.what for each in told(made, (heard(bucket), []), (heard(settled), []))]
    assert whats == [What.RECORDED, What.SEALED]
