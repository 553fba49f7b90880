"""The machine of fetches: whatever holders do, every fetch ends, and with the right bytes if anyone has them."""

from __future__ import annotations

import random
from collections import deque

import pytest

from dflow_protocols.events import FetchAdvanced, Fetched, FetchFailed, Report, Tick
from dflow_protocols.names import NodeId, RunId, ShardId, ShardRef, shard_id
from dflow_protocols.shards.credit import MAX_LOSSES
from dflow_protocols.shards.transfer import (
    REFILL_CHUNKS,
    RUN_CHUNKS,
    WINDOW_CHUNKS,
    BytesCame,
    ChunkCame,
    Distrust,
    Dropped,
    HashesCame,
    HolderGone,
    HolderLacks,
    KeepHashes,
    LinkRenewed,
    SendAsk,
    TransferAction,
    TransferEvent,
    Transfers,
    Wanted,
)
from dflow_protocols.wire.bulk import Ask

PATIENCE_S = 2.0
RUN, OTHER = RunId("1" * 32), RunId("2" * 32)
A, B, C = NodeId("a" * 32), NodeId("b" * 32), NodeId("c" * 32)
ME = NodeId("e" * 32)


def shard_of(chunks: int, salt: int = 0) -> tuple[ShardRef, tuple[bytes, ...]]:
    """A shard of so many chunks, and what its chunks hash to."""
    hashes = tuple(bytes([salt, index]) + 30 * b"h" for index in range(chunks))
    nbytes = chunks << 20
    return ShardRef(shard_id(nbytes, hashes), nbytes), hashes


def wanted(
    ref: ShardRef, *holders: NodeId, first: int = 0, end: int | None = None, present: int = 0, run: RunId = RUN
) -> Wanted:
    return Wanted(run, ref, first, ref.nbytes >> 20 if end is None else end, holders, present, None)


def asks(actions: list[TransferAction]) -> list[tuple[NodeId, Ask]]:
    return [(action.holder, action.ask) for action in actions if isinstance(action, SendAsk)]


def test_a_shard_of_one_chunk_takes_one_round_trip() -> None:
    """Most shards of a step are small: their id alone proves the bytes, so no list of hashes is asked for."""
    transfers = Transfers(PATIENCE_S, ME)
    ref, (digest,) = shard_of(1)
    ((holder, ask),) = asks(transfers.handle(0.0, wanted(ref, A)))
    assert (holder, ask) == (A, Ask(0, ref.id, 0, 1, with_hashes=False))
    assert transfers.expects(A, 0, 0) == ref
    assert transfers.verifies(ref.id, 0, digest)
    assert not transfers.verifies(ref.id, 0, bytes(32))
    assert transfers.handle(0.1, ChunkCame(A, 0, 0, True)) == [Fetched(RUN, ref.id, 0, 1)]
    assert len(transfers) == 0


def test_no_holder_is_asked_for_more_than_its_credit_over_all_fetches() -> None:
    """What is on its way to us is memory and queue at the holder; the high-water mark drops silently."""
    transfers = Transfers(PATIENCE_S, ME)
    first, _ = shard_of(40)
    second, _ = shard_of(40, salt=1)
    made = asks(transfers.handle(0.0, wanted(first, A))) + asks(transfers.handle(0.0, wanted(second, A)))
    assert sum(ask.end - ask.first for _, ask in made) == WINDOW_CHUNKS
    assert all(ask.end - ask.first <= RUN_CHUNKS for _, ask in made)
    transfers.check()


def test_what_comes_is_followed_by_one_ask_for_several_chunks() -> None:
    """An ask for each chunk costs both ends as much again as the chunk."""
    transfers = Transfers(PATIENCE_S, ME)
    ref, hashes = shard_of(40)
    ((_, first), *_) = asks(transfers.handle(0.0, wanted(ref, A)))
    transfers.handle(0.1, HashesCame(A, first.ticket, hashes))
    made = [asks(transfers.handle(0.1, ChunkCame(A, first.ticket, index, True))) for index in range(REFILL_CHUNKS)]
    assert not any(made[:-1])
    ((_, ask),) = made[-1]
    assert ask.end - ask.first == REFILL_CHUNKS
    transfers.check()


def test_holders_share_the_chunks_of_a_large_shard() -> None:
    """Two holders are twice the bandwidth."""
    transfers = Transfers(PATIENCE_S, ME)
    ref, _ = shard_of(8)
    made = asks(transfers.handle(0.0, wanted(ref, A, B)))
    assert {holder for holder, _ in made} == {A, B}
    assert sorted(index for _, ask in made for index in range(ask.first, ask.end)) == list(range(8))


def test_hashes_that_do_not_make_the_id_are_a_lie() -> None:
    """The list of hashes is what every chunk is trusted by."""
    transfers = Transfers(PATIENCE_S, ME)
    ref, hashes = shard_of(3)
    ((_, ask),) = asks(transfers.handle(0.0, wanted(ref, A)))
    assert ask.with_hashes
    actions = transfers.handle(0.1, HashesCame(A, ask.ticket, hashes[::-1]))
    assert isinstance(actions[0], Report)
    assert actions[1:] == [FetchFailed(RUN, ref.id, 0, 3, (A,), ())]
    assert len(transfers) == 0


def test_an_answer_shows_that_older_asks_were_lost_and_they_are_made_again() -> None:
    """Answers keep the order of asks, so a gap is a loss, and needs no timeout."""
    transfers = Transfers(PATIENCE_S, ME)
    first, second = shard_of(1)[0], shard_of(1, salt=1)[0]
    transfers.handle(0.0, wanted(first, A))
    transfers.handle(0.0, wanted(second, A))
    actions = transfers.handle(0.1, ChunkCame(A, 1, 0, True))
    assert Fetched(RUN, second.id, 0, 1) in actions
    assert asks(actions) == [(A, Ask(2, first.id, 0, 1, with_hashes=False))]
    assert transfers.expects(A, 0, 0) is None


def test_a_holder_whose_links_keep_breaking_is_passed_over() -> None:
    """Each new link would reset its patience for ever."""
    transfers = Transfers(PATIENCE_S, ME)
    ref, _ = shard_of(1)
    actions = transfers.handle(0.0, wanted(ref, A))
    for _ in range(MAX_LOSSES):
        assert asks(actions)
        actions = transfers.handle(0.0, LinkRenewed(A))
    assert actions == [FetchFailed(RUN, ref.id, 0, 1, (), (A,))]


def test_silence_is_counted_from_the_last_answer_and_ends_in_the_next_holder() -> None:
    """A holder that is at work on other asks is slow, not silent."""
    transfers = Transfers(PATIENCE_S, ME)
    ref, hashes = shard_of(20)
    (_, ask), *_ = asks(transfers.handle(10.0, wanted(ref, A)))
    assert transfers.deadline == 10.0 + PATIENCE_S
    transfers.handle(11.0, HashesCame(A, ask.ticket, hashes))
    assert transfers.deadline == 11.0 + PATIENCE_S
    assert transfers.handle(12.0, Tick()) == []
    transfers.handle(12.5, wanted(ref, A, B))
    actions = transfers.handle(13.0, Tick())
    assert actions[0] == Distrust(A)
    assert {holder for holder, _ in asks(actions)} == {B}


def test_a_holder_of_which_bytes_come_is_slow_and_not_silent() -> None:
    """At 10 Mbit/s a chunk takes a second, of four holders at once four: given up, its bytes would all come again."""
    transfers = Transfers(PATIENCE_S, ME)
    ref, _ = shard_of(2)
    transfers.handle(10.0, wanted(ref, A))
    assert transfers.asked() == [A]
    assert transfers.handle(11.9, BytesCame(A)) == [FetchAdvanced(RUN, ref.id)]
    assert transfers.handle(13.8, Tick()) == []
    assert transfers.handle(13.9, Tick())[0] == Distrust(A)


def test_a_dropped_fetch_gives_its_credit_to_others() -> None:
    """A cancelled run must not hold up the others' fetches."""
    transfers = Transfers(PATIENCE_S, ME)
    first, second = shard_of(WINDOW_CHUNKS)[0], shard_of(1, salt=1)[0]
    transfers.handle(0.0, wanted(first, A))
    assert not asks(transfers.handle(0.0, wanted(second, A)))
    actions = transfers.handle(0.0, Dropped(RUN, first.id))
    assert [ask.shard for _, ask in asks(actions)] == [second.id]
    transfers.check()


def test_ranges_are_announced_each_when_it_is_complete() -> None:
    """Two slices of one gradient may be wanted, and the first one is worked on at once."""
    transfers = Transfers(PATIENCE_S, ME)
    ref, hashes = shard_of(6)
    ((_, one),) = asks(transfers.handle(0.0, wanted(ref, A, first=0, end=2)))
    ((_, two),) = asks(transfers.handle(0.0, wanted(ref, A, first=2, end=4)))
    assert transfers.handle(0.1, HashesCame(A, one.ticket, hashes)) == [KeepHashes(ref.id, hashes)]
    assert transfers.handle(0.1, ChunkCame(A, one.ticket, 0, True)) == []
    assert transfers.handle(0.1, ChunkCame(A, one.ticket, 1, True)) == [Fetched(RUN, ref.id, 0, 2)]
    transfers.handle(0.1, ChunkCame(A, two.ticket, 2, True))
    assert transfers.handle(0.1, ChunkCame(A, two.ticket, 3, True)) == [Fetched(RUN, ref.id, 2, 4)]


def test_one_fetch_serves_two_runs_and_goes_on_when_one_of_them_drops_it() -> None:
    """Two runs of one spec make the same bytes: neither may end, nor be told of, what the other asked for."""
    transfers = Transfers(PATIENCE_S, ME)
    ref, _ = shard_of(1)
    ((_, ask),) = asks(transfers.handle(0.0, wanted(ref, A)))
    assert not asks(transfers.handle(0.0, wanted(ref, A, run=OTHER)))
    assert transfers.wanting(ref.id) == (RUN, OTHER)
    assert transfers.handle(0.0, Dropped(RUN, ref.id)) == []
    transfers.check()
    assert transfers.handle(0.1, ChunkCame(A, ask.ticket, 0, True)) == [Fetched(OTHER, ref.id, 0, 1)]
    transfers.handle(0.2, wanted(ref, A))
    transfers.handle(0.2, wanted(ref, A, run=OTHER))
    failed = transfers.handle(0.3, HolderLacks(A, 1, 0, 1))
    assert failed == [FetchFailed(run, ref.id, 0, 1, (A,), ()) for run in (RUN, OTHER)]


class Swarm:
    """Holders that are honest, poor, lying, deaf or lossy, and a fetcher that must cope: all drawn from one seed."""

    KINDS = ("honest", "poor", "lying", "deaf", "lossy")

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.transfers = Transfers(PATIENCE_S, ME)
        self.now = 0.0
        self.kinds = {NodeId(f"{n:032x}"): self.rng.choice(self.KINDS) for n in range(self.rng.randint(1, 5))}
        self.shards = dict(shard_of(self.rng.randint(1, 30), salt) for salt in range(self.rng.randint(1, 12)))
        self.hashes = {ref.id: hashes for ref, hashes in self.shards.items()}
        self.pending: deque[tuple[NodeId, Ask]] = deque()
        self.ended: dict[ShardId, TransferAction] = {}
        self.reported: set[NodeId] = set()

    def handle(self, event: TransferEvent) -> None:
        for action in self.transfers.handle(self.now, event):
            match action:
                case SendAsk(holder, ask):
                    self.pending.append((holder, ask))
                case Fetched(_, shard) | FetchFailed(_, shard):
                    assert shard not in self.ended
                    self.ended[shard] = action
                case Report():
                    self.reported.add(action.fields["holder"])
                case _:
                    pass
        self.transfers.check()

    def run(self) -> None:
        for ref in self.shards:
            self.handle(wanted(ref, *self.kinds))
        while len(self.transfers):
            if not self.pending:
                self.now = self.transfers.deadline
                self.handle(Tick())
                continue
            self.now += 0.001
            self.answer(*self.pending.popleft())

    def answer(self, holder: NodeId, ask: Ask) -> None:
        kind, hashes = self.kinds[holder], self.hashes[ask.shard]
        if kind == "deaf" or (kind == "lossy" and self.rng.random() < 0.1):
            return
        if self.rng.random() < 0.01:
            trouble: list[TransferEvent] = [LinkRenewed(holder), HolderGone(holder)]
            self.handle(self.rng.choice(trouble) if kind == "lossy" else Tick())
        if ask.with_hashes:
            self.handle(HashesCame(holder, ask.ticket, hashes))
        for index in range(ask.first, ask.end):
            if kind == "poor" and index % 3 == 0:
                self.handle(HolderLacks(holder, ask.ticket, index, index + 1))
            elif self.transfers.expects(holder, ask.ticket, index) is not None:
                is_good = kind != "lying" or self.rng.random() < 0.7
                self.handle(ChunkCame(holder, ask.ticket, index, is_good))


@pytest.mark.parametrize("seed", range(60))
def test_every_fetch_ends_and_well_if_an_honest_holder_was_named(seed: int) -> None:
    """The step waits for fetches; one that neither ends nor fails would hang it."""
    swarm = Swarm(seed)
    swarm.run()
    assert set(swarm.ended) == set(swarm.hashes)
    if "honest" in swarm.kinds.values():
        assert all(isinstance(end, Fetched) for end in swarm.ended.values())
    assert {swarm.kinds[holder] for holder in swarm.reported} <= {"lying"}
