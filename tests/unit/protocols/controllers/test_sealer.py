"""Sealing at one node: a seal is put to the replicas, announced once they keep it, and what it needs gets copies."""

from __future__ import annotations

from dataclasses import replace

from dflow_protocols.controllers.rosters import Rosters
from dflow_protocols.controllers.sealer import Sealer
from dflow_protocols.events import Fetch
from dflow_protocols.names import MANIFEST, UPDATE, Partition, ShardId, ShardRef, TaskKey
from dflow_protocols.shards.holdings import MOST_ALONG
from dflow_protocols.simulator.toy import TOY_PARTITIONS
from dflow_protocols.wire.books import MOST_SHORT_BYTES
from dflow_protocols.wire.steps import OutputsPut, Record, RecordPut, RecordsHeld, SealPut
from tests.unit.protocols.books import MIB, RUN, SUSPICION_S, ZERO, finished_partition, learn, shard, who
from tests.unit.protocols.controllers.a_run import ALL, ARun, mesh


def sealer(run: ARun) -> Sealer:
    return Sealer(run.state, Rosters(run.state, run.outbox), run.outbox)


def finish_all(run: ARun, holders: tuple[int, ...] = (1, 2)) -> None:
    for partition in range(TOY_PARTITIONS):
        learn(run.view(), *finished_partition(partition), holders=holders)


def when_due(run: ARun) -> float:
    """When it is surely this node's turn, whatever its place in the succession."""
    return 3 * SUSPICION_S


def made_by_another(run: ARun, partition: int) -> tuple[Record, ...]:
    """Node 2 finished a partition, and nobody else has what it made."""
    records = finished_partition(partition)
    learn(run.view(), *records, holders=(2,))
    return records


def backing_up(partition: int) -> tuple[ARun, Sealer, tuple[Record, ...]]:
    """A node of three that learnt of one partition that another one finished."""
    run = ARun()
    return run, sealer(run), made_by_another(run, partition)


def backed_up(run: ARun, at_node: Sealer, now: float = 0.0) -> list[ShardRef]:
    """What the node then begins to fetch."""
    run.out.clear()
    at_node.back_up(run.view(now), run.out)
    return [action.ref for action in run.out if isinstance(action, Fetch)]


def refs_of(*records: Record) -> list[ShardRef]:
    return [ref for record in records for ref in record.shards]


def named(run: ARun) -> set[str]:
    """The records whose outputs it says to have, too."""
    told = [message for _, message in run.told(RecordsHeld) if isinstance(message, RecordsHeld)]
    return {name for message in told for name in message.records}


def finish_rest(run: ARun, partition: int) -> None:
    """All other partitions have their two holders."""
    for other in range(TOY_PARTITIONS):
        if other != partition:
            learn(run.view(), *finished_partition(other), holders=(2, 3))


def copied_here() -> set[int]:
    """The partitions of which this node is the first to be a second holder."""
    fetched = {}
    for partition in range(TOY_PARTITIONS):
        run, at_node, _ = backing_up(partition)
        fetched[partition] = backed_up(run, at_node)
    return {partition for partition, refs in fetched.items() if refs}


def test_a_manifest_is_put_to_the_replicas_and_announced_when_they_keep_it() -> None:
    """What all act on must outlive any one of them."""
    run = ARun()
    finish_all(run)
    at_node = sealer(run)
    for now in (0.0, when_due(run), 2 * when_due(run)):
        at_node.settle(run.view(now), ALL, MANIFEST, ZERO.id, run.out)
    (seal,) = run.state.step(0).seals.values()
    put = [message for _, message in run.told(SealPut) if isinstance(message, SealPut)]
    assert put
    assert all(message.seal == seal and not message.settled for message in put)
    run.out.clear()
    run.state.step(0).acks[seal.id].update(run.view().replicas)
    assert at_node.settle(run.view(2 * when_due(run)), ALL, MANIFEST, ZERO.id, run.out) == seal
    assert [message.settled for _, message in run.told(SealPut) if isinstance(message, SealPut)] == [True, True]


def test_nothing_is_sealed_while_a_partition_is_missing() -> None:
    """Weights are a function of all of them."""
    run = ARun()
    for partition in range(TOY_PARTITIONS - 1):
        learn(run.view(), *finished_partition(partition))
    assert sealer(run).settle(run.view(when_due(run)), ALL, MANIFEST, ZERO.id, run.out) is None
    assert run.out == []


def test_an_update_is_not_looked_for_before_there_is_a_manifest() -> None:
    """It reads what the manifest fixes."""
    run = ARun()
    finish_all(run)
    assert sealer(run).settle(run.view(when_due(run)), ALL, UPDATE, None, run.out) is None
    assert run.out == []


def test_a_replica_becomes_the_second_holder_of_what_has_one() -> None:
    """A rollout that dies with its host is made again by somebody: minutes, for a copy that takes none."""
    run = ARun()
    first, *_ = finished_partition(0)
    run.state.step(0).add(first)
    maker = next(node for node in run.view().replicas if node != run.state.me)
    run.state.holdings.credit(maker, [ref.id for ref in first.shards])
    at_node = sealer(run)
    for now in (0.0, 2 * SUSPICION_S):
        at_node.back_up(run.view(now), run.out)
    assert [action.ref for action in run.out if isinstance(action, Fetch)] == list(first.shards)
    for ref in first.shards:
        run.state.holdings.keep(ref)
    run.out.clear()
    at_node.back_up(run.view(3 * SUSPICION_S), run.out)
    run.outbox.tell_copied(run.view(), run.out)
    assert named(run) == {first.id}


def test_what_a_partition_made_gets_its_second_holder_at_once_and_that_is_said_once() -> None:
    """At each word all replicas look at the step again: a chain of three stages would cost them three looks each."""
    partition = min(copied_here())
    run, at_node, records = backing_up(partition)
    finish_rest(run, partition)
    fetched = refs_of(*records)
    assert backed_up(run, at_node) == fetched
    for ref in fetched:
        assert run.told(RecordsHeld) == []
        run.state.holdings.fetched(0.0, ref.id, (0, 1))
        at_node.back_up(run.view(), run.out)
    assert {message for _, message in run.told(RecordsHeld)} == {
        RecordsHeld(RUN, 0, "", tuple(record.id for record in records))
    }


def test_what_came_along_is_good_for_one_turn() -> None:
    """A member may send what nobody wants, and would fill the memory of who kept it."""
    partition = min(copied_here())
    run, at_node, records = backing_up(partition)
    first, *others = refs_of(*records)
    run.state.holdings.come_along([(first.id, b"bytes"), (ShardId("0" * 64), b"of nothing")])
    at_node.back_up(run.view(), run.out)
    came = {action.ref: action.came for action in run.out if isinstance(action, Fetch)}
    assert came == {first: b"bytes", **dict.fromkeys(others, b"")}
    run.state.holdings.end_turn()
    assert run.state.holdings.came == {}


def test_of_what_comes_along_little_is_kept_however_much_a_member_sends() -> None:
    """No turn in which this node acts need end soon: it may be catching up with a mesh that held it dead."""
    holdings = ARun().state.holdings
    holdings.come_along([(ShardId("f" * 64), bytes(MOST_SHORT_BYTES + 1))])
    assert holdings.came == {}
    for number in range(2 * MOST_ALONG):
        holdings.come_along([(ShardId(f"{number:064x}"), bytes(MOST_SHORT_BYTES))])
    assert len(holdings.came) == MOST_ALONG


def test_bytes_go_along_to_who_is_to_be_the_second_holder_alone() -> None:
    """The third replica keeps records, and no copy."""
    run, records = ARun(), list(finished_partition(0))
    short = tuple((ref.id, b"bytes") for ref in refs_of(*records))
    run.outbox.put_records(run.view(), records, run.out, short=short)
    second, *_ = run.view().back_up_order(records[0].task, {run.state.me})
    assert run.told(OutputsPut) == [(second, OutputsPut(RUN, short))]


FOUR = mesh(1, 2, 3, 4)  # of whom this node is no replica


def heavy(partition: int) -> Record:
    """What a partition sampled, where that is far more than its record."""
    ref = shard(f"heavy {partition}", 4 * MIB)
    return Record(TaskKey(0, "roll", Partition(partition)), (str(ZERO.id),), (("rollout", ref),), (), ())


def learnt_here() -> tuple[ARun, Record]:
    """A node that is no replica, and something heavy that another one made of a partition on which this one trains."""
    for partition in range(TOY_PARTITIONS):
        run, record = ARun(members=4), heavy(partition)
        run.state.step(0).add(record)
        if run.view(members=FOUR).back_up_order(record.task, {who(2)})[0] == run.state.me:
            run.state.holdings.credit(who(2), [ref.id for ref in record.shards])
            return run, record
    raise AssertionError("it trains on none")


def test_what_is_heavy_is_held_by_who_trains_on_it() -> None:
    """Of the three replicas each link would carry a third of what a step sampled, to be fetched from there again."""
    run, record = learnt_here()
    assert run.state.me not in run.view(members=FOUR).replicas
    sealer(run).back_up(run.view(members=FOUR), run.out)
    assert [action.ref for action in run.out if isinstance(action, Fetch)] == refs_of(record)


def test_what_another_chain_made_of_a_partition_decides_nothing() -> None:
    """The maker need not know of that: it told, and gave what is short to, who is first by what its chain made, and
    who else knew more left it to another one, who had not heard of it."""
    for partition in copied_here():
        run, at_node, records = backing_up(partition)
        run.state.step(0).add(replace(heavy(partition), task=TaskKey(0, "held", Partition(partition))))
        assert backed_up(run, at_node) == refs_of(*records)


def test_who_is_to_hold_what_is_heavy_hears_of_it_from_its_maker() -> None:
    """All others are told by the replicas, when it is sealed."""
    _, record = learnt_here()
    at_maker = ARun(members=4, me=2)
    at_maker.state.step(0).add(record, own=True)
    at_maker.outbox.put_records(at_maker.view(members=FOUR), [record], at_maker.out)
    assert who(1) in {node for node, _ in at_maker.told(RecordPut)}


def test_who_is_no_replica_says_what_it_holds_when_it_does_no_partition_any_more() -> None:
    """It does not know when all are over."""
    run, record = learnt_here()
    at_node = sealer(run)
    at_node.back_up(run.view(members=FOUR), run.out)
    run.state.holdings.fetched(0.0, record.shards[0].id, (0, 4))
    another = TaskKey(0, "roll", Partition(TOY_PARTITIONS - 1))
    at_node.back_up(replace(run.view(members=FOUR), running=(another,)), run.out)
    assert named(run) == set()
    at_node.back_up(run.view(members=FOUR), run.out)
    assert named(run) == {record.id}


def test_an_evaluation_keeps_nobody_from_saying_what_it_holds() -> None:
    """It takes long, and no manifest waits for it: the others would wait for the word, and then for the next look."""
    run, record = learnt_here()
    at_node = sealer(run)
    at_node.back_up(run.view(members=FOUR), run.out)
    run.state.holdings.fetched(0.0, record.shards[0].id, (0, 4))
    evaluating = (TaskKey(0, "held", Partition(0)),)
    at_node.back_up(replace(run.view(members=FOUR), running=evaluating), run.out)
    assert named(run) == {record.id}


def test_one_more_is_to_hold_it_each_time_that_waiting_did_not_help() -> None:
    """Where links are slow the first one is at it: if all began as well, it would take them longer still."""
    run, record = learnt_here()
    first, *others = run.view(members=FOUR).back_up_order(record.task, {who(2)})
    for times, node in enumerate(others, 1):
        at = ARun(members=4, me=int(node, 16))
        at.state.step(0).add(record)
        at.state.holdings.credit(who(2), [ref.id for ref in record.shards])
        at_node = sealer(at)
        for waited in range(times + 1):
            assert not any(isinstance(action, Fetch) for action in at.out)
            at_node.back_up(at.view(waited * SUSPICION_S, FOUR), at.out)
        assert [action.ref for action in at.out if isinstance(action, Fetch)] == refs_of(record)
    assert first == run.state.me


def backed_up_here(partition: int) -> tuple[ARun, Sealer, tuple[Record, ...]]:
    """A run whose node has become the second holder of what a partition made."""
    run, at_node, records = backing_up(partition)
    backed_up(run, at_node)
    for ref in refs_of(*records):
        run.state.holdings.fetched(0.0, ref.id, (0, 1))
    at_node.back_up(run.view(), run.out)
    return run, at_node, records


def test_while_partitions_are_done_the_second_holder_waits_for_the_next_word() -> None:
    """Nothing can be sealed before all are over, and each word of its own wakes a node."""
    partition = min(copied_here())
    run, _, records = backed_up_here(partition)
    assert run.told(RecordsHeld) == []
    run.outbox.put_records(run.view(), list(finished_partition(min({0, 1} - {partition}))), run.out)
    assert named(run) == {record.id for record in records}


def test_the_second_holder_waits_no_longer_when_all_partitions_are_over() -> None:
    """Then it is all that the manifest waits for."""
    partition = min(copied_here())
    run, at_node, records = backed_up_here(partition)
    finish_rest(run, partition)
    at_node.back_up(run.view(), run.out)
    assert named(run) == {record.id for record in records}


def test_an_output_that_nobody_gives_does_not_keep_the_others_from_being_told() -> None:
    """They have two holders. That the last one is tried again a little later is no reason to doubt it."""
    run, at_node, (*others, last) = backing_up(min(copied_here()))
    backed_up(run, at_node)
    for ref in refs_of(*others):
        run.state.holdings.fetched(0.0, ref.id, (0, 1))
    for ref in refs_of(last):
        run.state.holdings.failed(0.0, ref.id, (0, 1), [], run.out)
    at_node.back_up(run.view(), run.out)
    run.outbox.tell_copied(run.view(), run.out)
    assert named(run) == {record.id for record in others}


def test_a_third_holder_is_made_only_of_what_waited_long_for_its_second_one() -> None:
    """A step takes minutes, a partition of it is new for a moment: patience with the step would have all copy all."""
    early, new = sorted(set(range(TOY_PARTITIONS)) - copied_here())[:2]
    run, at_node, waits = backing_up(early)
    assert backed_up(run, at_node) == []
    late = 2 * SUSPICION_S
    made_by_another(run, new)
    assert backed_up(run, at_node, late) == refs_of(*waits)


def test_what_is_thin_again_is_waited_for_anew() -> None:
    """Its second holder died: whose turn it is to be the next one has had no time yet."""
    part = min(set(range(TOY_PARTITIONS)) - copied_here())
    run, at_node, records = backing_up(part)
    backed_up(run, at_node)
    run.state.holdings.credit(who(3), [ref.id for ref in refs_of(*records)])
    assert backed_up(run, at_node, 0.5) == []
    run.state.holdings.forget(who(3))
    assert backed_up(run, at_node, 2 * SUSPICION_S) == []


def test_where_nobody_else_lives_there_is_nothing_to_copy() -> None:
    """One holder is all there can be."""
    run = ARun()
    first, *_ = finished_partition(0)
    learn(run.view(), first, holders=(1,))
    sealer(run).back_up(run.view(9.0, mesh(1)), run.out)
    assert run.out == []
