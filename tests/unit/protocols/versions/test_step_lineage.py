"""What a lost branch cost, and who of those on it says so."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dflow_protocols.names import NodeId, VersionId
from dflow_protocols.pipeline.runnable import MAX_VERSIONS_BEHIND
from dflow_protocols.steps.roster import is_minority
from dflow_protocols.versions.lineage import MAX_ANCESTRY, Lineage, is_chain
from dflow_protocols.wire.steps import Head

A, B, C, D = (NodeId(letter * 32) for letter in "abcd")
EVERYBODY = (A, B, C, D)


def head(name: str, step: int) -> Head:
    return Head(VersionId(f"{name}{step}"), step, 10 * step)


def chain(*names: str) -> tuple[Head, ...]:
    """Heads by step from 0 on; a name is that of the branch which made the version."""
    return tuple(head(name, step) for step, name in enumerate(names))


def grown(me: NodeId, heads: tuple[Head, ...]) -> Lineage:
    lineage = Lineage(me)
    for each in heads:
        lineage.extend(each, {})
    return lineage


def test_the_cost_is_counted_from_where_the_chains_part() -> None:
    """Two shared steps, then three of one branch against four of the other."""
    mine, other = chain(*"xxxmm"), chain(*"xxxoooo")
    lost = grown(B, mine).switch(other[-1], other[:-1], {}, EVERYBODY)
    assert lost is not None
    assert (lost.fork_step, lost.steps, lost.samples, lost.head, lost.teller) == (2, 2, 20, mine[-1], B)


def test_who_is_late_on_the_same_chain_has_lost_nothing() -> None:
    """Copying a descendant of the own version is catching up."""
    other = chain(*"xxxxxx")
    assert grown(B, other[:3]).switch(other[-1], other[:-1], {}, EVERYBODY) is None


def test_of_those_on_a_lost_branch_one_tells_whoever_comes_over_first() -> None:
    """The first to switch is forgotten by nobody who was with it, so that the others know that it has told."""
    mine, other = chain(*"xxmm"), chain(*"xxooo")
    late = grown(C, mine)
    late.see(A, mine[2])
    late.see(A, other[-1])  # it has gone over
    late.see(D, mine[1])  # never seen on the branch itself
    lost = late.switch(other[-1], other[:-1], {A: other[-1]}, EVERYBODY)
    assert lost is not None
    assert lost.teller == A


def test_who_lost_a_branch_alone_tells_although_others_shared_what_came_before() -> None:
    mine, other = chain(*"xxmm"), chain(*"xxooo")
    alone = grown(C, mine)
    alone.see(A, mine[1])
    lost = alone.switch(other[-1], other[:-1], {A: other[-1]}, EVERYBODY)
    assert lost is not None
    assert lost.teller == C


def test_the_branch_is_as_long_as_the_best_of_those_on_it() -> None:
    mine, other = chain(*"xxmmm"), chain(*"xxoooo")
    behind = grown(A, mine[:4])
    behind.extend(mine[4], {B: mine[4]})
    del behind.chain[4]
    lost = behind.switch(other[-1], other[:-1], {}, EVERYBODY)
    assert lost is not None
    assert lost.head == mine[4]


def test_what_is_remembered_is_bounded() -> None:
    """And as far back as what is trained on may have been sampled, whether a node made its version or copied it."""
    heads = chain(*"x" * (MAX_ANCESTRY + 50))
    made, copied = grown(A, heads), Lineage(A)
    copied.switch(heads[-1], made.before(heads[-1]), {}, EVERYBODY)
    for lineage in (made, copied):
        assert len(lineage.before(heads[-1])) == MAX_ANCESTRY >= MAX_VERSIONS_BEHIND
        assert is_chain(heads[-1], lineage.before(heads[-1]))


def test_a_chain_that_skips_a_step_or_gains_samples_backwards_is_none() -> None:
    """A member may send anything."""
    assert is_chain(head("x", 3), (head("x", 2), head("x", 1)))
    assert not is_chain(head("x", 3), (head("x", 1),))
    assert not is_chain(head("x", 3), (Head(VersionId("y"), 2, 1000),))
    assert not is_chain(
        head("x", MAX_ANCESTRY + 9), tuple(head("x", step) for step in reversed(range(MAX_ANCESTRY + 9)))
    )


@given(st.sets(st.sampled_from("abcdefg"), min_size=1), st.data())
def test_of_two_parts_of_a_roster_exactly_one_goes_on(names: set[str], data: st.DataObject) -> None:
    """Both going on makes a branch that loses; both waiting stops the run."""
    roster = [NodeId(name * 32) for name in data.draw(st.permutations(sorted(names)))]
    side = data.draw(st.sets(st.sampled_from(roster)))
    assert is_minority(roster, side) != is_minority(roster, set(roster) - side)
