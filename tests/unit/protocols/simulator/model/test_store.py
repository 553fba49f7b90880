"""The store of a pretended node: what gives way, and what may not yet be dropped."""

from __future__ import annotations

from dflow_protocols.names import CHUNK_BYTES, RunId, ShardId, ShardRef
from dflow_protocols.shards.space import Priority
from dflow_protocols.simulator.model.store import Store
from dflow_protocols.work import Product

FIRST, SECOND = RunId("a" * 32), RunId("b" * 32)


def ref(digit: int, nbytes: int = 100) -> ShardRef:
    return ShardRef(ShardId(str(digit) * 64), nbytes)


def test_a_pretended_store_sheds_as_the_real_one() -> None:
    """States and what works read stay; of the rest the latest goes."""
    shed: list[tuple[RunId, ShardId]] = []
    store = Store(limit_bytes=400, on_shed=lambda run, shard: shed.append((run, shard)))
    refs = [ShardRef(ShardId(str(digit) * 64), 100) for digit in range(6)]
    assert store.take(0.0, Priority(FIRST, 5, Product.STATE), refs[0], ())
    for index, step in ((1, 5), (2, 6), (3, 7)):
        assert store.take(0.0, Priority(FIRST, step), refs[index], ())
    assert store.take(0.0, Priority(FIRST, 4), refs[4], {refs[3].id})
    assert shed == [(FIRST, refs[2].id)]
    assert store.take(0.0, Priority(FIRST, 4), refs[5], {refs[3].id})
    assert shed[1:] == [(FIRST, refs[1].id)]
    assert not store.take(0.0, Priority(FIRST, 4), refs[2], {refs[3].id})
    assert store.drop(FIRST, refs[5].id)
    assert store.held_bytes == 300


def test_what_a_call_made_cannot_be_dropped_before_the_node_hears_of_it() -> None:
    """A drop that was decided before the call ended means an older copy, not this one."""
    store = Store()
    made = store.put_made(FIRST, [ref(1)])
    assert not store.drop(FIRST, ref(1).id)
    assert store.has(ref(1))
    store.hand_over(made)
    store.drop(FIRST, ref(1).id)
    assert not store.has(ref(1))


def test_room_for_several_shards_is_taken_for_all_or_for_none() -> None:
    """Half a state is of no use and would keep others out."""
    store = Store(limit_bytes=250)
    assert not store.take_all(0.0, Priority(FIRST, 1, Product.STATE), [ref(1), ref(2), ref(3)], ())
    assert store.held_bytes == 0
    assert store.take_all(0.0, Priority(FIRST, 1, Product.STATE), [ref(1), ref(2)], ())


def test_a_shard_of_two_runs_stays_until_both_have_dropped_it() -> None:
    """Equal bytes have one id, whoever made them."""
    store = Store()
    store.put(FIRST, ref(1))
    store.put(SECOND, ref(1))
    store.drop(FIRST, ref(1).id)
    assert store.has(ref(1))
    store.drop(SECOND, ref(1).id)
    assert store.held_bytes == 0
    assert store.peak_bytes == 100


def test_only_the_chunks_that_came_are_here() -> None:
    """A slice reads some chunks of a gradient and no more."""
    store, whole = Store(), ref(1, 3 * CHUNK_BYTES)
    store.put(FIRST, whole, 1, 2)
    assert store.has(whole, 1, 2)
    assert not store.has(whole)


def test_what_is_given_up_is_told_to_every_run_that_refers_to_it() -> None:
    """A run that is not told would wait for what is gone."""
    shed: list[tuple[RunId, ShardId]] = []
    store = Store()
    store.watch(lambda run, shard: shed.append((run, shard)))
    store.put(SECOND, ref(1))
    store.put(FIRST, ref(1))
    store.give_up(ref(1).id)
    assert shed == [(FIRST, ref(1).id), (SECOND, ref(1).id)]
    assert not store.has(ref(1))


def test_a_store_that_something_else_has_filled_grants_no_more_until_that_is_gone() -> None:
    """What lies there stays, and what is for later gives way as in one that is full."""
    store = Store()
    later, sooner = Priority(FIRST, 7), Priority(FIRST, 5)
    assert store.take(0.0, later, ref(1), ())
    store.fill()
    assert not store.take(1.0, Priority(FIRST, 8), ref(2), ())
    assert store.take(2.0, sooner, ref(3), ())
    assert (store.shed, store.refusals) == ({ref(1).id}, 1)
    store.make_room()
    assert store.take(3.0, later, ref(1), ())
