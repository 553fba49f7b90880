"""Pretended slots, disk and health: how a work runs, waits, is cut short and breaks."""

from __future__ import annotations

from functools import partial
from random import Random

import pytest

from dflow_protocols.events import Began, Broke, Event, Finished, Reached, Start
from dflow_protocols.names import Block, Part, Partition, RunId, ShardId, ShardRef, SpecId, TaskKey, part_of
from dflow_protocols.simulator.model.disk import Disk
from dflow_protocols.simulator.model.health import SLOW, Health
from dflow_protocols.simulator.model.provenance import Ledger
from dflow_protocols.simulator.model.schedule import Life, Schedule
from dflow_protocols.simulator.model.slots import Site, Slots
from dflow_protocols.simulator.model.store import Store
from dflow_protocols.simulator.model.work import PURE, Engines
from dflow_protocols.simulator.toy import two_steps
from dflow_protocols.versions.saved import Saved
from dflow_protocols.wire.steps import Header
from dflow_protocols.work import BlockWork, ChainWork, FailureKind, InitWork, LoadWork, SaveWork, Work

RUN = RunId("ab" * 16)
PARAMS = ShardRef(ShardId("c" * 64), 100)
STATE = (("params:policy", PARAMS),)
HEADER = Header(None, 1, 0, "", STATE)
BLOCK = BlockWork(0, "learn", 0, 4, (), (), STATE)
LOAD = LoadWork(RUN, HEADER)


def chain(partition: int) -> ChainWork:
    return ChainWork(0, ("roll", "score", "adv"), partition, STATE)


class Node:
    """What slots are given, and what they tell."""

    def __init__(self, count: int = 1, limit_bytes: int | None = None, host_count: int = 0) -> None:
        self.schedule, self.got = Schedule(), list[Event]()
        self.life = Life(self.schedule, Random(1), self._hear)
        self.store, self.disk, self.health = Store(limit_bytes), Disk(), Health()
        self.poison: dict[tuple[str, Part], FailureKind] = {}
        engines = Engines(Ledger(), two_steps(), PURE, Random(1))
        site = Site({RUN: engines}, self.poison)
        self.slots = Slots(count, host_count, self.life, site, self.store, self.disk, self.health)
        self._calls = 0

    def _hear(self, event: Event) -> None:
        self.got.append(event)
        if isinstance(event, Finished):
            self.slots.heard(event.call)

    def begin(self, work: Work, stage: str = "", part: str = "x") -> Start:
        self._calls += 1
        start = Start(self._calls, RUN, TaskKey(0, stage, part_of(part)), work)
        self.slots.begin(start)
        return start

    def end(self, seconds: float = 30.0) -> list[Event]:
        """What was told until all is over."""
        self.schedule.run(seconds)
        got, self.got = self.got, []
        return got

    def has_ended(self, call: int) -> bool:
        return any(isinstance(event, Finished | Broke) and event.call == call for event in self.got)

    def how(self, work: Work, stage: str = "", part: str = "x") -> str:
        """How a work ends: `done`, or the kind of its failure."""
        self.begin(work, stage, part)
        (end,) = (event for event in self.end() if isinstance(event, Finished | Broke))
        return "done" if isinstance(end, Finished) else end.failed.kind


def test_a_work_waits_for_a_slot_and_the_first_that_waits_is_the_first_taken() -> None:
    """A node must be able to tell what its slots are at."""
    for count in (1, 2):
        node = Node(count)
        starts = [node.begin(chain(partition)) for partition in range(4)]
        ended = [event.call for event in node.end() if isinstance(event, Finished)]
        assert sorted(ended) == [start.call for start in starts]
        assert count > 1 or ended == sorted(ended)
        assert not node.slots.calls


def test_host_work_runs_beside_what_has_the_device() -> None:
    """As a daemon does it where the host has slots of its own; where it has none, both wait for the same."""
    for host_count in (0, 1):
        node = Node(host_count=host_count)
        first, second = node.begin(BLOCK), node.begin(LOAD)
        began = [event.call for event in node.end(0.02) if isinstance(event, Began)]
        assert began == [first.call, second.call][: 1 + host_count]


def test_the_slot_says_what_it_took_before_it_says_how_the_one_before_ended() -> None:
    """A node that hears of an end must not believe for a moment that the slot is free."""
    node = Node()
    first, second = node.begin(chain(0)), node.begin(chain(1))
    told = [event for event in node.end() if isinstance(event, Began | Finished)]
    assert [(type(event), event.call) for event in told] == [
        (Began, first.call),
        (Began, second.call),
        (Finished, first.call),
        (Finished, second.call),
    ]


def test_a_stopped_call_tells_nothing_and_gives_its_slot_to_the_next() -> None:
    """`Stop`: nothing of it is answered any more."""
    node = Node()
    first, second = node.begin(chain(0)), node.begin(chain(1))
    node.slots.stop(first.call)
    assert [event.call for event in node.end() if isinstance(event, Finished)] == [second.call]


def test_a_block_that_is_trimmed_ends_before_the_leaf_and_says_how_far_it_is() -> None:
    """What was given away is somebody else's; what was done is kept, cut into aligned blocks."""
    node = Node()
    start = node.begin(BLOCK)
    node.slots.trim(start.call, 3)
    began, *reached, done = node.end()
    assert began == Began(start.call)
    assert reached == [Reached(start.call, leaf) for leaf in range(3)]
    assert isinstance(done, Finished)
    assert [made.block for made in done.done.made] == [Block(0, 2), Block(2, 3)]


def test_what_a_call_reads_is_pinned_until_it_ends() -> None:
    """An engine has it mapped."""
    node = Node()
    node.begin(chain(0))
    assert node.slots.pinned() == {PARAMS.id}
    node.end()
    assert node.slots.pinned() == set()


def test_a_result_that_finds_no_room_breaks_its_work() -> None:
    """It is done again when there is."""
    assert Node(limit_bytes=10).how(InitWork()) == "full"


@pytest.mark.parametrize(
    ("handicap", "ends"),
    [
        ("broken", ["engine", "engine", "engine", "engine"]),
        ("read-only", ["done", "done", "full", "done"]),
        ("mute", ["done", "done", "done", "done"]),
    ],
)
def test_a_handicap_breaks_what_it_names_and_nothing_else(handicap: str, ends: list[str]) -> None:
    """A disk that takes nothing does not stop a machine from computing."""
    node = Node()
    node.health.impair(handicap)
    works: list[Work] = [chain(0), BLOCK, SaveWork(RUN, HEADER), LoadWork(RUN, HEADER)]
    assert [node.how(work) for work in works] == ends
    assert node.health.is_mute == (handicap == "mute")


def test_a_slow_machine_takes_so_many_times_as_long() -> None:
    """Stealing and dealing are tried against it."""
    times = []
    for is_slow in (False, True):
        node = Node()
        if is_slow:
            node.health.impair("slow")
        node.begin(chain(0))
        node.schedule.run(60.0, partial(node.has_ended, 1))
        times.append(node.schedule.now)
    assert times[1] == pytest.approx(SLOW * times[0], rel=0.1)


def test_so_many_works_break_as_were_to_and_calm_mends_the_rest() -> None:
    """`user` breaks only where a user's code runs."""
    node = Node()
    node.health.break_next(2, "user")
    assert [node.how(work) for work in (BLOCK, chain(0), chain(1), chain(2))] == ["done", "user", "user", "done"]
    node.health.break_next(5, "engine")
    node.health.mend()
    assert node.how(chain(0)) == "done"


def test_a_work_that_hangs_is_given_up_and_the_next_one_is_done() -> None:
    """As a supervisor kills an engine that makes no progress."""
    node = Node()
    node.health.hang_next(7.0)
    assert node.how(chain(0)) == "engine"
    assert node.how(chain(1)) == "done"


def test_a_full_disk_takes_no_checkpoint_until_there_is_room() -> None:
    """What engines compute needs no disk."""
    node = Node()
    node.disk.fill()
    assert [node.how(work) for work in (chain(0), SaveWork(RUN, HEADER))] == ["done", "full"]
    node.disk.make_room()
    assert node.how(SaveWork(RUN, HEADER)) == "done"


def test_a_poisoned_partition_breaks_whoever_works_on_it() -> None:
    """Its neighbours go on."""
    node = Node()
    node.poison["roll", Partition(1)] = "user"
    assert [node.how(chain(part), "roll", f"p{part}") for part in range(3)] == ["done", "user", "done"]


def saved(step: int, branch: str = "a") -> Saved:
    params = ShardRef(ShardId(f"{branch}{step}" * 32), 100)
    return Saved(RUN, SpecId("e" * 16), 1, "toy", Header(None, step, 0, "", (("params:policy", params),)), ())


def test_a_torn_checkpoint_is_found_out_by_who_reads_it() -> None:
    """Power went while its bytes were on their way; the older one is whole."""
    node = Node()
    for step in (1, 2):
        node.disk.save(saved(step))
    node.disk.tear_newest()
    assert node.how(LoadWork(RUN, saved(1).header)) == "done"
    assert node.how(LoadWork(RUN, saved(2).header)) == "damaged"
    assert node.how(SaveWork(RUN, saved(2).header)) == "done"
    assert node.how(LoadWork(RUN, saved(2).header)) == "done"


def test_a_checkpoint_takes_the_place_of_another_of_its_step() -> None:
    """Two branches of one run do not lie side by side in one folder."""
    disk = Disk()
    for each in (saved(1), saved(2), saved(2, "b")):
        disk.save(each)
    assert list(disk.saved) == [saved(1).header.id, saved(2, "b").header.id]
    disk.write("peers", b"1")
    disk.wipe()
    assert disk == Disk()
