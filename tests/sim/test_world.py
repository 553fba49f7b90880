"""The world itself, driven by a node so simple that what must happen is plain."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dflow_protocols.events import (
    Action,
    Dial,
    Drop,
    Event,
    Fetch,
    Fetched,
    FetchFailed,
    Lagged,
    NotPersisted,
    Persist,
    Received,
    Send,
    Start,
    Tick,
)
from dflow_protocols.names import CHUNK_BYTES, Once, RunId, ShardId, ShardRef, TaskKey
from dflow_protocols.simulator.faults import Crash, Cut, Drift, FullDisk, Lag, Pause, When, action, sends
from dflow_protocols.simulator.invariants import Violation
from dflow_protocols.simulator.machines import key_of
from dflow_protocols.simulator.model.host import BootContext
from dflow_protocols.simulator.world import World
from dflow_protocols.wire.frame import Frame
from dflow_protocols.wire.steps import Header, RunGet
from dflow_protocols.work import SaveWork

RUN = RunId("a" * 32)
SHARD = ShardRef(ShardId("b" * 64), 2 * CHUNK_BYTES + 1)
BEAT = Frame(None, (RunGet(RUN),))
BEAT_S = 0.5


class Beater:
    """Every half second: counts on disk, then tells every other node. Remembers what it got."""

    def __init__(self, boot: BootContext, count: int) -> None:
        self.me, self.count, self.rng = boot.index, count, boot.rng
        self.deadline = boot.now + BEAT_S
        self.must_act = False
        self.due: list[Action] = []
        self.got: list[Event] = []
        self.extra: list[Action] = [Dial(World.id_of(i), key_of(i), "c", "b") for i in range(count)]

    def take(self, now: float, event: Event) -> None:
        extra, self.extra = self.extra, []
        if not isinstance(event, Tick):
            self.got.append(event)
            self.due += extra
            return
        self.deadline = now + self.rng.uniform(0.5, 1.0) * BEAT_S
        sends = [Send(World.id_of(i), BEAT) for i in range(self.count) if i != self.me]
        self.due += [Persist("count", b"1"), *extra, *sends]

    def act(self, now: float) -> list[Action]:
        due, self.due = self.due, []
        return due

    def check(self) -> None:
        pass


def beating(nodes: int, seed: int = 0, digest: bool = False) -> World:
    return World(lambda boot: Beater(boot, nodes), nodes=nodes, seed=seed, digest=digest)


def beater(world: World, index: int) -> Beater:
    machine = world.hosts[index].machine
    assert isinstance(machine, Beater)
    return machine


def heard(world: World, index: int, source: int) -> int:
    told = Received(world.id_of(source), BEAT)
    return sum(event == told for event in beater(world, index).got)


def order(world: World, index: int, *actions: Action) -> None:
    """Have a node perform these with its next beat."""
    beater(world, index).extra += actions


def test_one_seed_gives_one_story_and_another_seed_another() -> None:
    """Without this no failure could be seen twice."""
    digests = []
    for seed in (1, 1, 2):
        world = beating(3, seed, digest=True)
        world.at(1.0, Crash(1, restart_after_s=1.0))
        world.network.loss = 0.1
        world.run(5.0)
        digests.append(world.trace.digest)
    assert digests[0] == digests[1] != digests[2]


def test_a_crash_loses_memory_and_keeps_the_disk() -> None:
    """kill -9: what was fsynced is all there is at the next start, under a new incarnation."""
    world = beating(2)
    world.hosts[1].store.put(RUN, SHARD)
    world.at(1.2, Crash(1, restart_after_s=1.0))
    world.run(2.0)
    assert world.hosts[1].machine is None
    world.run(0.4)
    assert world.hosts[1].disk.values == {"incarnation": b"\x02", "count": b"1"}
    assert not world.hosts[1].store.has(SHARD)
    assert heard(world, 1, 0) <= 1


def test_a_crash_can_fall_between_two_actions_of_one_event() -> None:
    """Written, but not yet told: the order of actions is what a node relies on. A write that was under way is there or
    is not."""
    found = set()
    for seed in range(6):
        world = beating(2, seed=seed)
        world.when(action(0, 0), Crash(0))
        world.run(3.0)
        found.add(world.hosts[0].disk.values.get("count"))
        assert heard(world, 1, 0) == 0
    assert found == {None, b"1"}


def test_what_was_fsynced_before_another_action_outlives_every_crash() -> None:
    """A node may rely on it as soon as it acts on it."""
    for seed in range(6):
        world = beating(2, seed=seed)
        world.when(action(0, 1), Crash(0))
        world.run(3.0)
        assert world.hosts[0].disk.values["count"] == b"1"


def test_a_paused_node_gets_on_waking_what_came_meanwhile() -> None:
    """SIGSTOP leaves the sockets' buffers, so a stalled daemon wakes to old news."""
    world = beating(2)
    world.at(1.0, Pause(2.0, 1))
    world.run(2.9)
    before = heard(world, 1, 0)
    world.run(0.2)
    assert before <= 2
    assert heard(world, 1, 0) >= 5


def test_a_one_way_cut_stops_one_way_only() -> None:
    """Half-deaf nodes are what failure detectors get wrong."""
    world = beating(2)
    world.at(0.0, Cut(0, 1, 60.0))
    world.run(3.0)
    assert heard(world, 1, 0) == 0
    assert heard(world, 0, 1) >= 5


def test_just_the_named_frame_is_lost() -> None:
    """The k-th message lost, for every k: the other draws must not move."""
    counts = []
    for lose in (frozenset[int](), frozenset({2})):
        world = beating(2)
        world.network.lose = lose
        world.run(4.0)
        counts.append(heard(world, 0, 1) + heard(world, 1, 0))
    assert counts[0] == counts[1] + 1


@pytest.mark.parametrize(
    ("harm", "missing", "silent"),
    [
        (lambda world: None, (), ()),
        (lambda world: world.hosts[1].store.drop(RUN, SHARD.id), (1,), ()),
        (lambda world: world.kill(world.hosts[1]), (), (1,)),
        (lambda world: world.network.cuts.add((world.id_of(1), world.id_of(0))), (), (1,)),
    ],
)
def test_a_fetch_asks_one_holder_after_the_other(
    harm: Callable[[World], None], missing: tuple[int, ...], silent: tuple[int, ...]
) -> None:
    """A holder that says no and one that says nothing are told apart; either way the next one is asked."""
    for other_has in (True, False):
        world = beating(3)
        world.hosts[1].store.put(RUN, SHARD)
        if other_has:
            world.hosts[2].store.put(RUN, SHARD)
        harm(world)
        order(world, 0, Fetch(RUN, SHARD, 1, 3, (world.id_of(1), world.id_of(2))))
        world.run(5.0)
        (answer,) = (e for e in beater(world, 0).got if isinstance(e, Fetched | FetchFailed))
        if other_has or not (missing or silent):
            assert answer == Fetched(RUN, SHARD.id, 1, 3)
            assert world.hosts[0].store.has(SHARD, 1, 3)
            assert not world.hosts[0].store.has(SHARD)
        else:
            assert isinstance(answer, FetchFailed)
            assert set(answer.silent) == {world.id_of(i) for i in silent}
            assert set(answer.missing) == {world.id_of(i) for i in (*missing, 2)}


def test_a_dropped_shard_is_free_and_its_fetch_is_never_answered() -> None:
    """Freeing is how memory stays bounded; an answer to a fetch given up would revive the shard."""
    world = beating(2)
    world.hosts[1].store.put(RUN, SHARD)
    order(world, 0, Fetch(RUN, SHARD, 0, 3, (world.id_of(1),)), Drop(RUN, (SHARD.id,)))
    order(world, 1, Drop(RUN, (SHARD.id,)))
    world.run(4.0)
    assert not any(isinstance(e, Fetched | FetchFailed) for e in beater(world, 0).got)
    assert world.hosts[1].store.held_bytes == 0


def test_a_work_whose_inputs_are_not_there_ends_the_world_with_the_way_to_see_it_again() -> None:
    """An engine would read what is not mapped; the failure has to name the node, the shard and the replay."""
    world = beating(1, seed=7)
    order(
        world,
        0,
        Start(1, RUN, TaskKey(0, "", Once("save")), SaveWork(RUN, Header(None, 0, 0, "", (("params:policy", SHARD),)))),
    )
    with pytest.raises(Violation, match=r"n0 starts 0//save without having bbbbbbbb(.|\n)*replay: seed 7"):
        world.run(2.0)


def test_a_node_that_raises_ends_the_world() -> None:
    """`take` never raises for what a peer said."""
    world = beating(2)

    def raises(now: float, event: Event) -> None:
        raise KeyError("x")

    beater(world, 1).take = raises  # type: ignore[method-assign]
    with pytest.raises(Violation, match="n1 raised KeyError"):
        world.run(2.0)


def test_the_story_tells_which_action_set_a_fault_off() -> None:
    """Else one would have to count messages to see why a node died just then."""
    world = beating(3)
    world.plan(When("send run_get", 3, node=2), Crash())
    world.run(4.0)
    told = [thing for _, who, what, thing, _ in world.trace.lines if what == "!"]
    assert told[-3:] == [When("send run_get", 3, node=2), Crash(), "dies"]
    assert world.struck == {"crash": 1}


def test_a_fault_can_wait_for_a_message() -> None:
    """Scenarios say "when the first seal is sent", not "at 3.41 s"."""
    world = beating(3)
    world.when(sends(RunGet, nth=3, node=2), Crash())
    world.run(4.0)
    assert [host.index for host in world.live()] == [0, 1]
    assert heard(world, 0, 2) + heard(world, 1, 2) == 4


def test_a_full_disk_is_told_of_and_nobody_hears_what_it_did_not_take() -> None:
    """As a driver does it; the rest of the turn is done."""
    world = beating(2)
    world.at(0.0, FullDisk(3.0, 0))
    world.run(2.5)
    assert NotPersisted("count") in beater(world, 0).got
    assert heard(world, 1, 0) == 0
    world.run(6.0)
    assert world.hosts[0].disk.values["count"] == b"1"
    assert heard(world, 1, 0) > 0


def test_a_daemon_does_not_start_while_its_disk_is_full() -> None:
    """It could not keep the number of its life."""
    world = beating(2)
    world.at(1.0, FullDisk(4.0, 0))
    world.at(1.5, Crash(0, restart_after_s=0.5))
    world.run(4.0)
    assert world.hosts[0].machine is None
    world.run(4.0)
    assert world.hosts[0].machine is not None


def test_a_late_process_handles_all_later_and_says_how_late_it_is() -> None:
    """One sign a second, as a daemon's."""
    world = beating(2)
    world.at(2.0, Lag(0.4, 3.0, 0))
    world.run(2.3)
    before = heard(world, 0, 1)
    world.run(0.05)
    assert heard(world, 0, 1) == before
    world.run(6.0)
    told = [event.seconds for event in beater(world, 0).got if isinstance(event, Lagged)]
    assert heard(world, 0, 1) > before
    assert 2 <= len(told) <= 4
    assert told == pytest.approx([0.4] * len(told))


def test_a_clock_that_runs_fast_has_its_node_woken_more_often() -> None:
    """Its node sees no other clock."""
    world = beating(2)
    world.at(0.0, Drift(2.0, 0))
    world.run(20.0)
    assert heard(world, 1, 0) > 1.6 * heard(world, 0, 1)
