"""Versions: which head counts, what descends from what, when one is committed, and when one is copied."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dflow_protocols.events import Action, Fetch, Send
from dflow_protocols.names import VersionId, chunk_count
from dflow_protocols.shards.holdings import Holdings
from dflow_protocols.versions.catch_up import FOLLOWED_STEPS, SET_ASIDE_FOR, CatchUp
from dflow_protocols.versions.versions import Versions, preference
from dflow_protocols.wire.heartbeat import Heartbeat
from dflow_protocols.wire.steps import Head, Header, HeaderGet
from tests.unit.protocols.books import RUN, SUSPICION_S, ZERO, heartbeat, shard, version, who

HEADS = st.builds(
    Head, st.sampled_from(["a" * 64, "b" * 64, "c" * 64]).map(VersionId), st.integers(0, 2), st.integers(0, 2)
)
ALL = frozenset(who(number) for number in range(1, 6))


def knows(me: int, *headers: Header, own: Header | None = None) -> Versions:
    known = Versions(who(me))
    for header in headers:
        known.learn(header)
    if own is not None:
        known.hold(own)
    return known


@given(HEADS, HEADS, HEADS)
def test_fork_choice_is_a_total_order(a: Head, b: Head, c: Head) -> None:
    """Two nodes that compare the same heads must never prefer different ones."""
    assert (preference(a) == preference(b)) == (a == b)
    if preference(a) <= preference(b) <= preference(c):
        assert preference(a) <= preference(c)


def test_the_head_that_trained_on_more_wins_then_more_steps_then_the_smaller_id() -> None:
    """After a split the half that did more work is followed, however the other's id looks."""
    heads = [Head(VersionId(i * 64), step, n) for i, step, n in (("a", 3, 0), ("b", 2, 1), ("c", 2, 1), ("d", 1, 2))]
    assert [head.version[0] for head in sorted(heads, key=preference)] == ["d", "b", "c", "a"]


def test_a_head_counts_only_while_its_holder_lives() -> None:
    """A version that nobody alive holds cannot be copied: waiting for it would be for ever."""
    one = version("one", ZERO, samples=8)
    versions = knows(1, own=ZERO)
    versions.observe(who(2), heartbeat(one))
    assert versions.best(0.0, ALL) == (one.head, who(2))
    assert versions.best(0.0, ALL - {who(2)}) == (ZERO.head, who(1))


def test_hearsay_never_overrides_what_a_holder_said_itself() -> None:
    """Third parties may be behind; the node's own word is newer than theirs about it."""
    one = version("one", ZERO)
    versions = knows(1)
    versions.observe(who(2), heartbeat(ZERO))
    versions.learn_head(who(2), one.head, ALL)
    versions.learn_head(who(3), one.head, ALL)
    versions.learn_head(who(1), one.head, ALL)
    assert versions.claims == {who(2): ZERO.head, who(3): one.head}


said = st.one_of(
    st.tuples(st.just("itself"), st.integers(2, 4), st.one_of(st.none(), HEADS)),
    st.tuples(st.just("others"), st.integers(2, 4), HEADS),
    st.tuples(st.just("gone"), st.integers(2, 4)),
)


@given(st.lists(said))
def test_what_others_claim_to_hold_follows_every_claim(claims: list[tuple[Any, ...]]) -> None:
    """The heads are kept until a claim changes: a stale one would be copied from who has it no more."""
    versions = knows(1)
    for what, number, *of in claims:
        match what, *of:
            case "itself", head:
                versions.observe(who(number), Heartbeat(RUN, head, None, None, 0))
            case "others", head:
                versions.learn_head(who(number), head, ALL)
            case _:
                versions.forget(who(number))
        found = {node: head for node, head in sorted(versions.claims.items()) if head is not None}
        assert list(versions.heads.items()) == list(found.items())


def test_descent_is_known_or_unknown_never_guessed() -> None:
    """Following and freeing rest on it: a missing header must not read as another branch."""
    one, other = version("one", ZERO), version("other", ZERO)
    two = version("two", one)
    versions = knows(1, ZERO, one, other, two)
    assert versions.descends(two.id, ZERO)
    assert versions.descends(two.id, one)
    assert versions.descends(two.id, other) is False
    assert versions.descends(one.id, two) is False
    assert knows(1, two).descends(two.id, ZERO) is None


def test_a_version_is_committed_by_two_holders_or_all_trainers_there_are() -> None:
    """Freeing the step's inputs rests on it; descendants are evidence too, the dead are none."""
    one = version("one", ZERO)
    two = version("two", one)
    versions = knows(1, ZERO, one, two, own=one)
    trainers = [who(1), who(2), who(3)]
    assert not versions.is_committed(one, trainers, ALL)
    assert versions.is_committed(one, trainers, {who(1), who(4)})
    versions.observe(who(2), heartbeat(two))
    assert versions.is_committed(one, trainers, ALL)
    assert not versions.is_committed(two, trainers, ALL)
    assert not versions.is_committed(one, trainers, ALL - {who(2)})


def test_a_claim_of_the_other_branch_commits_nothing() -> None:
    """Two holders of different weights are not two copies."""
    one, other = version("one", ZERO), version("other", ZERO)
    versions = knows(1, ZERO, one, other, own=one)
    versions.observe(who(2), heartbeat(other))
    assert not versions.is_committed(one, [who(1), who(2)], ALL)


def test_a_holder_of_the_child_counts_as_one_of_the_parent() -> None:
    """It keeps the parent a while, which is where a late node copies it from."""
    one = version("one", ZERO)
    versions = knows(1, one)
    versions.observe(who(2), heartbeat(one))
    versions.observe(who(3), heartbeat(ZERO))
    assert versions.holders(ZERO.id, ALL) == (who(2), who(3))
    assert versions.holders(one.id, ALL) == (who(2),)


def test_who_copied_the_child_is_no_holder_of_the_parent() -> None:
    """It never had that: who fetched it there, or left a disk to it, would wait for nothing."""
    one = version("one", ZERO)
    two = version("two", one)
    versions = knows(1, ZERO, one, two, own=one)
    versions.observe(who(2), heartbeat(two))
    versions.observe(who(3), replace(heartbeat(two), entered=2))
    assert versions.holders(one.id, ALL) == versions.passers(one, ALL) == (who(2),)
    assert versions.holders(two.id, ALL) == (who(2), who(3))
    versions.forget(who(3))
    versions.observe(who(3), heartbeat(two))
    assert versions.holders(one.id, ALL) == (who(2), who(3))


def test_a_node_says_from_which_version_on_it_made_all() -> None:
    """What it copied or loaded last, whatever it held before."""
    one = version("one", ZERO)
    three = version("three", version("two", one))
    versions, entered = knows(1), []
    for header in (ZERO, one, three, version("four", three)):
        versions.hold(header)
        entered.append(versions.entered[who(1)])
    assert entered == [0, 0, 3, 3]


def test_pruned_headers_are_those_of_settled_steps_that_are_not_held() -> None:
    one = version("one", ZERO)
    two = version("two", one)
    versions = knows(1, ZERO, one, two, own=ZERO)
    versions.prune(2, ())
    assert set(versions.headers) == {ZERO.id, two.id}


# Following ------------------------------------------------------------------------------------------------------------


def follower(*headers: Header, own: Header) -> CatchUp:
    versions = knows(1, *headers, own=own)
    holdings = Holdings(RUN, who(1))
    for _, ref in own.state:
        holdings.keep(ref)
    return CatchUp(versions, holdings)


def look(following: CatchUp, now: float, busy: bool = False) -> list[Action]:
    out: list[Action] = []
    following.reconcile(now, ALL, SUSPICION_S, busy, out)
    return out


def test_a_head_two_steps_ahead_is_asked_for_then_copied_and_held_once_whole() -> None:
    """Who was away catches up by copying; from the first chunk to the last it claims only what it holds."""
    two = version("two", version("one", ZERO), samples=8)
    following = follower(own=ZERO)
    following.versions.observe(who(2), heartbeat(two))
    assert look(following, 0.0) == [Send(who(2), HeaderGet(RUN, two.id))]
    following.versions.learn(two)
    fetches = look(following, 0.1)
    assert [(each.ref, each.holders) for each in fetches if isinstance(each, Fetch)] == [
        (ref, (who(2),)) for _, ref in two.state
    ]
    for each in fetches:
        assert isinstance(each, Fetch)
        assert following.versions.own == ZERO
        following.holdings.fetched(0.2, each.ref.id, (each.first, each.end))
        look(following, 0.2)
    assert following.versions.own == two
    assert following.target is None


def test_the_own_next_version_is_made_not_copied_unless_it_does_not_come() -> None:
    """Copying weights that the node is about to make itself would double the step's traffic."""
    one = version("one", ZERO, samples=8)
    following = follower(one, own=ZERO)
    following.versions.observe(who(2), heartbeat(one))
    assert look(following, 10.0) == []
    assert look(following, 10.0 + SUSPICION_S) == []
    assert look(following, 10.1 + SUSPICION_S, busy=True) == []
    assert look(following, 10.2 + SUSPICION_S) == []
    assert [type(each) for each in look(following, 10.2 + 2.1 * SUSPICION_S)] == [Fetch, Fetch]


def test_a_copy_that_stalls_is_set_aside_and_tried_again_later() -> None:
    """A better head that nobody can fetch must not stop a node for ever, nor be forgotten."""
    two = version("two", version("one", ZERO), samples=8)
    following = follower(two, own=ZERO)
    following.versions.observe(who(2), heartbeat(two))
    look(following, 0.0)
    assert following.target == two
    look(following, 0.5 * SUSPICION_S)
    assert following.target == two
    look(following, 1.5 * SUSPICION_S)
    assert following.target is None
    look(following, (1.6 + SET_ASIDE_FOR) * SUSPICION_S)
    assert following.target == two


def test_a_copy_stalls_though_rollouts_come() -> None:
    """A replica hears of others' outputs all through a step: these bring it no version."""
    two, output = version("two", version("one", ZERO), samples=8), shard("output")
    following = follower(two, own=ZERO)
    following.versions.observe(who(2), heartbeat(two))
    look(following, 0.0)
    following.holdings.want(0.0, output, ALL, [], others=[who(3)])
    following.holdings.advanced(SUSPICION_S, output.id)
    look(following, 1.5 * SUSPICION_S)
    assert following.target is None


@pytest.mark.parametrize("is_on", [False, True], ids=["beside it", "beyond it"])
def test_a_copy_that_nobody_can_give_is_left_for_what_they_went_to(is_on: bool) -> None:
    """Who held it found a better one and dropped this one: it would be waited for in vain. Who is steps beyond it may
    keep it for whoever copies it."""
    lost = version("lost", ZERO)
    found = version("next", version("made of it", lost)) if is_on else version("better", ZERO, samples=8)
    following = follower(lost, own=ZERO)
    following.versions.observe(who(2), heartbeat(lost))
    look(following, 0.0)
    look(following, 1.5 * SUSPICION_S)
    assert following.target == lost
    following.versions.observe(who(2), heartbeat(found))
    look(following, 1.6 * SUSPICION_S)
    assert following.target == lost, "somebody is still asked for it"
    for _, ref in lost.state:
        following.holdings.failed(1.7 * SUSPICION_S, ref.id, (0, chunk_count(ref.nbytes)), [who(2)], [])
    look(following, 1.8 * SUSPICION_S)
    assert (following.target == lost) is is_on


def test_a_head_that_was_set_aside_is_tried_again_when_somebody_new_has_it() -> None:
    """Whom nobody reaches gave it to a member through another one: that may be asked, and all wait for no more."""
    two = version("two", version("one", ZERO), samples=8)
    following = follower(two, own=ZERO)
    following.versions.observe(who(2), heartbeat(two))
    look(following, 0.0)
    look(following, 1.5 * SUSPICION_S)
    assert following.target is None
    following.versions.observe(who(2), heartbeat(two))
    look(following, 1.6 * SUSPICION_S)
    assert following.target is None, "nothing is new of who gave none"
    following.versions.observe(who(3), heartbeat(two))
    look(following, 1.7 * SUSPICION_S)
    assert following.target == two
    following.versions.observe(who(4), heartbeat(two))
    look(following, 3.2 * SUSPICION_S)
    assert following.target == two, "one came to hold it while others were asked in vain"
    look(following, 4.7 * SUSPICION_S)
    assert following.target is None, "each was tried"


def test_a_copy_that_flows_is_never_given_up() -> None:
    """Large weights over a slow link take many suspicion times."""
    two = version("two", version("one", ZERO), samples=8)
    following = follower(two, own=ZERO)
    following.versions.observe(who(2), heartbeat(two))
    look(following, 0.0)
    for tenth in range(1, 100):
        following.holdings.advanced(tenth / 10, two.state[0][1].id)
        look(following, tenth / 10)
        assert following.target == two


def test_who_was_copying_asks_what_became_of_its_version_and_goes_on_from_there() -> None:
    """The others are further by the time it is whole: to copy again would take as long again."""
    three = version("three", version("two", version("one", ZERO)), samples=8)
    copied = replace(version("one", ZERO), parent=VersionId("f" * 64))  # whose parent this node never heard of
    following = follower(copied, own=copied)
    following.versions.observe(who(2), heartbeat(three))
    assert look(following, 0.0) == [Send(who(2), HeaderGet(RUN, three.id))]
    assert following.pinned == copied.head  # until it is known that nothing better comes of it
    before = (Head(VersionId("2" * 64), 2, 0), copied.head)
    following.versions.learn(three, before)
    assert look(following, 0.1) == []
    assert following.pinned == copied.head
    assert [type(each) for each in look(following, 0.2 + SUSPICION_S)] == [Fetch, Fetch]  # gone after all
    assert following.pinned == three.head


def test_who_is_so_far_behind_that_nothing_is_kept_for_it_copies_the_newest_version() -> None:
    """It would do each step once more, alone, while the others get further away, and keep books of all of these."""
    chain = [ZERO]
    for number in range(FOLLOWED_STEPS + 1):
        chain.append(version(f"v{number}", chain[-1], samples=8))
    for best, is_copied in ((chain[FOLLOWED_STEPS], False), (chain[-1], True)):
        following = follower(*chain, own=ZERO)
        following.versions.observe(who(2), heartbeat(best))
        look(following, 0.0)
        assert (following.target is not None) == is_copied


def test_of_a_version_just_copied_even_the_next_ones_header_is_asked_for() -> None:
    """Else nothing would tell that it is committed, and nobody makes two versions of one that is not."""
    one = version("one", ZERO)
    two = version("two", one, samples=8)
    following = follower(one, own=one)
    following.versions.headers.pop(ZERO.id, None)
    following.versions.observe(who(2), heartbeat(two))
    assert look(following, 0.0) == [Send(who(2), HeaderGet(RUN, two.id))]


def test_what_a_member_pins_is_as_it_last_said_and_goes_with_it() -> None:
    """A pin that outlived its node would keep a version for nobody."""
    versions = knows(1, ZERO, own=ZERO)
    pinning = replace(heartbeat(None), pinned=ZERO.head)
    assert versions.observe(who(2), pinning)
    assert not versions.observe(who(2), pinning)
    assert versions.pins == {who(2): ZERO.head}
    assert versions.behind(ZERO.head) == {who(2)}
    versions.observe(who(2), replace(heartbeat(ZERO), pinned=ZERO.head))
    assert versions.behind(ZERO.head) == frozenset(), "it holds what it copied, and says so before it pins no more"
    versions.forget(who(2))
    assert versions.pins == {}
    assert versions.behind(version("one", ZERO).head) == frozenset()
