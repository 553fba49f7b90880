"""Networks that are not transitive: members that live and cannot talk to each other, while others reach both."""

from __future__ import annotations

from functools import cache
from itertools import combinations

import pytest

from dflow_protocols.events import Action, Event, Start
from dflow_protocols.simulator.faults import CloseLane, Cut, Join, Pause, Sever, Split
from dflow_protocols.simulator.goals import ended, finish, node
from dflow_protocols.simulator.model.host import Host
from dflow_protocols.simulator.spawn import spawn
from dflow_protocols.simulator.toy import two_steps, warm_then_two, with_sizes
from dflow_protocols.simulator.watching.checker import living_at
from dflow_protocols.simulator.world import World
from dflow_protocols.work import BlockWork, ChainWork, SliceWork, Work
from tests.support.simulated import ENDS_S, FORMED_S, mesh

NODES = 5
MANY = 16
PAIRS = frozenset(combinations(range(NODES), 2))
SHAPES = {
    "one-pair": frozenset({(0, 1)}),
    "line": frozenset(pair for pair in PAIRS if pair[1] - pair[0] > 1),
    "star": frozenset(pair for pair in PAIRS if 2 not in pair),
    "two-pairs": frozenset({(0, 1), (2, 3)}),
    "two-sides-and-one-between": frozenset({(0, 2), (0, 3), (1, 2), (1, 3)}),
}
LOOSE = 2
SETTLED_S = 8.0  # after so long each knows whom it cannot talk to
SLOWER = 3.0  # times the run of the undisturbed mesh
UNREACHED_S = 10.0  # a lane is tried four times, which takes 7.5 s, before anybody hears that it failed
BURIED_S = 5.0  # by when whoever stands still is held dead; and before its lanes are tried once more
COUNTS_S = 1.5  # a dial, and that all hear of it
SILENT_S = 1.6  # longer than a silent home is waited for, and no death
REPORTED_S = 90.0  # a pair that is apart for a minute is told of by then
TOGETHER_S = 10.0


def sever(world: World, shape: str) -> None:
    for one, other in sorted(SHAPES[shape]):
        world.at(world.now, Sever(one, other))


def apart_of(world: World, index: int) -> list[str]:
    """Whom a node says that it cannot talk to, by name."""
    mine = node(world.hosts[index]).membership.members[world.id_of(index)].claim
    return [host.name for host in world.hosts if host.id in mine.apart]


@cache
def undisturbed(seed: int) -> tuple[float, object]:
    """How long the run takes where all talk to all, and its weights."""
    world, run = mesh(NODES, seed=seed, pipeline=warm_then_two(), age_s=SETTLED_S)
    began = world.now
    world.expect(ENDS_S, ended(world, run), "the run ends")
    return world.now - began, finish(world, run, ENDS_S)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(2))
def test_a_run_costs_little_more_where_not_all_can_talk_to_all(shape: str, seed: int) -> None:
    """Waiting for who cannot be reached came to 5 to 28 times the run; nobody is held dead for it, either."""
    seconds, weights = undisturbed(seed)
    world = World(spawn, nodes=NODES, seed=seed, seeds=tuple(range(NODES)))
    sever(world, shape)
    world.run(SETTLED_S)
    run, began = world.submit(0, warm_then_two()), world.now
    world.expect(SLOWER * seconds, ended(world, run), f"the run ends in {SLOWER:g} times the undisturbed run's time")
    print(f"{shape}, seed {seed}: {world.now - began:.2f} s, undisturbed {seconds:.2f} s")
    assert finish(world, run, ENDS_S) == weights
    assert not [report for _, report in world.reports if report.name == "membership.died"]


@pytest.mark.parametrize("shape", SHAPES)
def test_links_that_break_under_way_are_found_and_gone_round(shape: str) -> None:
    """As a cable that is pulled in the middle of a step: what was on its way is said again, nobody is dead."""
    _, weights = undisturbed(0)
    world, run = mesh(NODES, pipeline=warm_then_two())
    world.run(0.6)
    sever(world, shape)
    world.expect(ENDS_S, ended(world, run), "the run ends")
    assert finish(world, run, ENDS_S) == weights
    assert not [report for _, report in world.reports if report.name == "membership.suspected"]


def test_a_member_whose_cable_is_loose_costs_little() -> None:
    """A second down, a second up, for as long as the run takes: it is dealt no further step, so nobody waits for it."""
    seconds, weights = undisturbed(0)
    world, run = mesh(NODES, pipeline=warm_then_two(), age_s=SETTLED_S)
    for second in range(0, int(SLOWER * seconds) + 2, 2):
        world.at(world.now + second, Split((LOOSE,), 1.0))
    world.expect(SLOWER * seconds, ended(world, run), f"the run ends in {SLOWER:g} times the undisturbed run's time")
    assert finish(world, run, ENDS_S) == weights


def test_who_is_heard_and_does_not_hear_is_spoken_to_through_others() -> None:
    """A firewall that lets nothing in: the one inside knows of no trouble until it is told."""
    world, run = mesh(4, pipeline=warm_then_two())
    world.at(world.now, Cut(0, 1, ENDS_S))
    world.run(SETTLED_S)
    assert apart_of(world, 1) == ["n0"]
    assert world.id_of(1) in node(world.hosts[0]).membership.routes
    finish(world, run, ENDS_S)


def test_two_that_cannot_talk_for_a_minute_are_named_and_again_when_they_can() -> None:
    """The mesh goes round a broken link, so nobody would ever learn of it."""
    world, _ = mesh(4)
    for source, to in ((0, 1), (1, 0)):
        world.at(world.now, Cut(source, to, REPORTED_S))

    def told(name: str) -> set[tuple[int, str]]:
        return {(index, report.fields["node"]) for index, report in world.reports if report.name == name}

    both = {(0, world.id_of(1)), (1, world.id_of(0))}
    world.run(REPORTED_S)
    assert told("membership.apart") == both
    world.expect(TOGETHER_S, lambda: told("membership.together") == both, "both say that they can talk again")
    assert not any(apart_of(world, index) for index in range(4))


def test_a_mesh_that_loses_frames_names_no_pair() -> None:
    """A lost ping is no broken link."""
    world, run = mesh(5)
    world.network.lose_share(0.05)
    world.run(REPORTED_S)
    assert not [report for _, report in world.reports if report.name == "membership.apart"]
    finish(world, run, ENDS_S)


def closed_one(world: World) -> Host:
    """A member that joined, and that nobody can dial."""
    closed = world.add((0,))
    world.at(world.now, CloseLane("control", ENDS_S, closed.index))
    world.at(world.now, Join(closed.index))
    world.expect(SETTLED_S, lambda: states(world, closed) == {"alive"}, "all hear of who joins")
    world.expect(UNREACHED_S, lambda: not counting(world, closed), "nobody counts on it")
    return closed


def states(world: World, member: Host) -> set[str]:
    """What the others believe of it."""
    known = [node(host).membership.members.get(member.id) for host in world.hosts if host is not member]
    return {"unknown" if each is None else each.state for each in known}


def counting(world: World, member: Host) -> list[Host]:
    """To whom it counts as living."""
    return [host for host in world.hosts if host is not member and member.id in living_at(host)]


def test_whom_nobody_can_dial_counts_to_nobody_in_a_mesh_where_most_are_silent_for_long() -> None:
    """Each hears a given member seldom, and one that let its failure pass was taken for the way to it by all others."""
    world, _ = mesh(MANY)
    closed_one(world)


def test_whom_nobody_can_dial_counts_to_nobody_when_it_comes_back_from_the_dead() -> None:
    """A host that stood still for a while was held dead, and with its death it was forgotten that it cannot be dialled:
    it was dealt work until its lanes were tried again, which may take two minutes."""
    world, _ = mesh(4)
    closed = closed_one(world)
    world.at(world.now, Pause(BURIED_S, closed.index))
    world.expect(BURIED_S, lambda: states(world, closed) == {"dead"}, "all hold it dead")
    world.expect(BURIED_S, lambda: states(world, closed) == {"alive"}, "it is back")
    for _ in range(100):
        assert not counting(world, closed)
        world.run(0.1)


class Begun:
    """A watcher of the works that one machine begins, but for versions, which each makes for itself."""

    def __init__(self, host: Host) -> None:
        self.of, self.works = host, list[Work]()

    def saw(self, host: Host, action: Action) -> None:
        if host is self.of and isinstance(action, Start) and isinstance(action.work, ChainWork | BlockWork | SliceWork):
            self.works.append(action.work)

    def heard(self, host: Host, event: Event) -> None:
        """Of no account."""

    def dies(self, host: Host) -> None:
        """Of no account."""


@pytest.mark.parametrize("at_s", [1.0, 6.0])
def test_whom_nobody_can_dial_takes_nothing_that_others_are_late_with(at_s: float) -> None:
    """It hears of the run, copies versions and is idle. What it made of units whose homes stood still for a moment
    nobody could have fetched."""
    world = World(spawn, nodes=3, seeds=(0, 1, 2))
    world.run(FORMED_S)
    closed = closed_one(world)
    begun = Begun(closed)
    world.watch(begun)
    run = world.submit(0, with_sizes(two_steps(), 6, 12, 8))
    for other in range(3):
        world.at(world.now + at_s, Pause(SILENT_S, other))
    world.expect(ENDS_S, ended(world, run), "it ends")
    assert run in node(closed).runs
    assert begun.works == []


def test_who_can_be_dialled_when_it_comes_back_counts_at_once() -> None:
    """It is dialled again then, and not when the next try is due."""
    world, _ = mesh(4)
    closed = closed_one(world)
    world.at(world.now, Pause(BURIED_S, closed.index))
    world.expect(BURIED_S, lambda: states(world, closed) == {"dead"}, "all hold it dead")
    world.network.open(closed.place, "control")
    world.expect(BURIED_S, lambda: states(world, closed) == {"alive"}, "it is back")
    world.expect(COUNTS_S, lambda: len(counting(world, closed)) == 4, "all count on it")
