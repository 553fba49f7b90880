"""Who runs what follows from the roster and the dead alone, so that nodes agree without a word."""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dflow_protocols.claiming.deal import ONE_EACH, beside, deal, homes, trained_by
from dflow_protocols.names import NodeId, Slice, TaskKey, part_of
from dflow_protocols.pipeline.plan import plan
from dflow_protocols.rendezvous import ranked
from dflow_protocols.run_state.origin import origin_of
from dflow_protocols.simulator.toy import two_steps
from dflow_protocols.steps.duty import Duty
from dflow_protocols.steps.roster import make_roster
from dflow_protocols.steps.view import step_order
from dflow_protocols.work import BlockWork, ChainWork, Origin, SliceWork
from tests.unit.protocols.books import RUN, who

ROSTERS = st.lists(st.integers(1, 40), min_size=1, max_size=9, unique=True).map(lambda ids: [who(i) for i in ids])


@given(st.integers(0, 50), ROSTERS)
def test_units_are_dealt_in_contiguous_runs_that_differ_by_at_most_one(count: int, roster: list[NodeId]) -> None:
    """Balanced without a message; contiguous, because neighbouring leaves make one block."""
    dealt = deal(range(count), roster)
    assert list(dealt) == list(range(count))
    shares = Counter(dealt.values())
    lengths = [shares[node] for node in roster]
    assert lengths == sorted(lengths, reverse=True)
    assert max(lengths) - min(lengths) <= 1
    order = [roster.index(dealt[unit]) for unit in range(count)]
    assert order == sorted(order)


@given(st.integers(0, 50), ROSTERS, st.data())
def test_a_host_gets_as_much_as_it_has_slots(count: int, roster: list[NodeId], data: st.DataObject) -> None:
    """Within one unit of its share; still in contiguous runs, the longer ones first."""
    slots = {node: data.draw(st.integers(1, 8)) for node in roster}
    dealt = deal(range(count), roster, slots)
    assert list(dealt) == list(range(count))
    shares = Counter(dealt.values())
    for node in roster:
        assert abs(shares[node] - count * slots[node] / sum(slots.values())) < 1
    runs = [len(list(run)) for _, run in groupby(dealt.values())]
    assert runs == sorted(shares.values(), reverse=True)


@given(st.integers(0, 50), ROSTERS, st.data(), st.booleans())
def test_every_unit_has_one_living_home(count: int, roster: list[NodeId], data: st.DataObject, in_runs: bool) -> None:
    """What the dead were dealt is dealt again at once, evenly."""
    living = set(data.draw(st.lists(st.sampled_from(roster), min_size=1, unique=True)))
    dealt = homes(range(count), roster, living, in_runs=in_runs)
    assert list(dealt) == list(range(count))
    assert set(dealt.values()) <= living
    orphaned = [unit for unit, home in deal(range(count), roster).items() if home not in living]
    shares = Counter(dealt[unit] for unit in orphaned)
    assert not shares or max(shares.values()) - min(shares.get(node, 0) for node in living) <= 1


@given(st.integers(0, 50), ROSTERS, st.data())
def test_however_much_the_dead_finished_the_rest_is_shared(
    count: int, roster: list[NodeId], data: st.DataObject
) -> None:
    """A member does what it is dealt in order: who is dealt the first half again would be left without any."""
    dead = data.draw(st.sampled_from(roster))
    living = [node for node in roster if node != dead]
    left = [unit for unit, home in deal(range(count), roster).items() if home == dead]
    left = left[data.draw(st.integers(0, len(left))) :]
    shares = Counter(homes(range(count), roster, living)[unit] for unit in left)
    assert not living or not shares or max(shares.values()) - min(shares.get(node, 0) for node in living) <= 1


@given(st.integers(1, 50), ROSTERS, st.data())
def test_what_the_living_have_is_never_taken_from_them(count: int, roster: list[NodeId], data: st.DataObject) -> None:
    """A death moves the dead one's work only: nobody stops what it runs."""
    living = set(data.draw(st.lists(st.sampled_from(roster), min_size=1, unique=True)))
    before = deal(range(count), roster)
    after = homes(range(count), roster, living)
    assert all(after[unit] == before[unit] for unit in range(count) if before[unit] in living)


@given(st.integers(1, 12), ROSTERS)
def test_who_is_beside_has_as_much_to_copy_as_everybody(each: int, roster: list[NodeId]) -> None:
    """Each partition goes to the nearest of the others: whose leaves reach into it if they are cut a little aside."""
    count = each * len(roster)
    homes_of = trained_by(count, count, roster, frozenset(roster), ONE_EACH)
    assert homes_of == tuple(deal(range(count), roster).values())
    others = [[node for node in beside(homes_of, place) if node != home] for place, home in enumerate(homes_of)]
    assert len(roster) == 1 or Counter(order[0] for order in others) == Counter(homes_of)
    assert all({*order} == {*roster} - {home} for order, home in zip(others, homes_of, strict=True))


@given(st.integers(1, 12), ROSTERS, st.data())
def test_who_trains_on_what_follows_a_death_as_leaves_do(each: int, roster: list[NodeId], data: st.DataObject) -> None:
    """Second copies would else go to others than who trains on them, and all of them to other ones by the view of who
    has not heard of the death."""
    living = frozenset(data.draw(st.lists(st.sampled_from(roster), min_size=1)))
    count = each * len(roster)
    by = trained_by(count, count, roster, living, ONE_EACH)
    assert by == tuple(homes(range(count), roster, living, in_runs=True).values())


def test_units_without_members_have_no_home() -> None:
    assert deal(range(3), []) == {}
    assert homes(range(3), [who(1)], set()) == dict.fromkeys(range(3), who(1))


@given(st.text(max_size=8), ROSTERS, st.randoms())
def test_a_ranking_depends_on_the_set_of_members_only(key: str, roster: list[NodeId], chance: Random) -> None:
    """Nodes learn of members in different orders."""
    shuffled = list(roster)
    chance.shuffle(shuffled)
    assert ranked(key, tuple(shuffled)) == ranked(key, tuple(roster))


@given(st.text(max_size=8), ROSTERS)
def test_who_goes_changes_nothing_among_the_others(key: str, roster: list[NodeId]) -> None:
    """Rendezvous hashing: replicas and sealers of living nodes stay where they are."""
    order = ranked(key, tuple(roster))
    gone = order[0]
    assert ranked(key, tuple(node for node in roster if node != gone)) == order[1:]


@pytest.mark.parametrize(
    ("part", "work"),
    [
        ("p0", ChainWork(0, ("roll", "score"), 0, ())),
        ("b0-1", BlockWork(0, "learn", 0, 1, (), (), ())),
    ],
)
def test_a_task_says_how_it_came_to_its_node(part: str, work: ChainWork | BlockWork) -> None:
    """`dflow tasks` tells what was dealt, stolen or dealt again; only the node that starts it knows which."""
    nodes = [who(number) for number in (1, 2, 3)]
    roster, dealt = make_roster(0, 0, nodes, nodes), plan(two_steps(), 0)
    first, second, _ = step_order(RUN, 0, roster.members)
    stage = work.stages[0] if isinstance(work, ChainWork) else work.stage
    duty = Duty(0, TaskKey(0, stage, part_of(part)), work, (), ())
    assert origin_of(RUN, first, duty, dealt, roster, is_borrowed=False) is Origin.DEALT
    assert origin_of(RUN, second, duty, dealt, roster, is_borrowed=False) is Origin.AGAIN
    assert origin_of(RUN, second, duty, dealt, roster, is_borrowed=True) is Origin.STOLEN


def test_what_is_dealt_to_nobody_in_particular_counts_as_dealt() -> None:
    """Slices, applying and saving follow from what a node is, not from the roster's deal."""
    nodes = [who(number) for number in (1, 2)]
    roster, dealt = make_roster(0, 0, nodes, nodes), plan(two_steps(), 0)
    duty = Duty(0, TaskKey(0, "learn", Slice(0, 1)), SliceWork(0, "learn", 0, 1, 2, (), 1), (), ())
    assert {origin_of(RUN, node, duty, dealt, roster, is_borrowed=False) for node in nodes} == {Origin.DEALT}
