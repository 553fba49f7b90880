"""Holdings: what is here, who else has what, and that a shard is fetched once, again after a failure, and let go."""

from __future__ import annotations

import pytest

from dflow_protocols.events import Action, Drop, Fetch, Send
from dflow_protocols.names import NodeId
from dflow_protocols.shards.holdings import BRING_ASKS, BRING_S, DISTRUST, RETRY_S, Holdings
from dflow_protocols.wire.steps import Bring
from dflow_protocols.work import Product
from tests.unit.protocols.books import MIB, RUN, shard, who

REF = shard("rollout", 3 * MIB)
SUSPICION_S = 2.0
ALL = frozenset(who(number) for number in range(1, 6))


def credited(*numbers: int) -> Holdings:
    holdings = Holdings(RUN, who(1))
    for number in numbers:
        holdings.credit(who(number), [REF.id])
    return holdings


def want(holdings: Holdings, now: float = 0.0, chunks: tuple[int, int] | None = None) -> tuple[bool, list[Action]]:
    out: list[Action] = []
    return holdings.want(now, REF, ALL, out, chunks), out


def test_a_shard_that_is_wanted_again_is_fetched_once() -> None:
    """Every look wants all that it needs; only the first begins a transfer."""
    holdings = credited(2)
    assert want(holdings) == (False, [Fetch(RUN, REF, 0, 3, (who(2),))])
    assert want(holdings) == (False, [])
    assert holdings.fetched(1.0, REF.id, (0, 3))
    assert want(holdings) == (True, [])
    assert holdings.live_holders(REF.id, ALL) == (who(2), who(1))


def test_a_range_waits_for_the_whole_that_is_on_its_way() -> None:
    holdings = credited(2)
    want(holdings)
    assert want(holdings, chunks=(1, 2)) == (False, [])


def test_a_range_is_had_without_the_whole_and_by_itself_makes_no_holder() -> None:
    """A slice's owner has some chunks of every block; others must not ask it for the rest."""
    holdings = credited(2)
    assert want(holdings, chunks=(1, 2)) == (False, [Fetch(RUN, REF, 1, 2, (who(2),))])
    holdings.fetched(0.0, REF.id, (1, 2))
    assert want(holdings, chunks=(1, 2)) == (True, [])
    assert not holdings.has(REF)
    assert holdings.live_holders(REF.id, ALL) == (who(2),)


def test_nobody_is_asked_for_what_no_living_node_holds() -> None:
    holdings = credited(2)
    out: list[Action] = []
    assert not holdings.want(0.0, REF, ALL - {who(2)}, out)
    assert out == []
    assert holdings.live_holders(REF.id, ALL - {who(2)}) == ()


def test_a_failed_fetch_forgets_who_lacks_the_shard_and_is_tried_again_later() -> None:
    """Who is silent may be slow and stays a holder; who said no is none. No retry in a tight loop."""
    holdings = credited(2, 3)
    want(holdings)
    holdings.failed(1.0, REF.id, (0, 3), [who(2)], [])
    assert want(holdings, 1.0 + RETRY_S / 2) == (False, [])
    assert want(holdings, 1.0 + RETRY_S) == (False, [Fetch(RUN, REF, 0, 3, (who(3),))])


def test_room_that_no_chunk_came_into_is_given_back() -> None:
    """A holder that cannot be reached would keep the store full of nothing, and what could be brought would wait."""
    holdings, out = credited(2), list[Action]()
    want(holdings)
    holdings.failed(1.0, REF.id, (0, 3), [], out, silent=[who(2)])
    assert out == [Drop(RUN, (REF.id,))]
    assert holdings.all_here() == set()
    assert holdings.has_said(who(2), [REF.id]), "it has it all the same"


@pytest.mark.parametrize("came", ["a chunk", "a range", "nothing yet of another range"])
def test_room_in_which_something_lies_or_is_to_come_is_kept(came: str) -> None:
    """Of a large shard the fetch goes on where it broke off."""
    holdings, out = credited(2), list[Action]()
    want(holdings, chunks=(0, 2))
    match came:
        case "a chunk":
            holdings.advanced(0.5, REF.id)
        case "a range":
            want(holdings, chunks=(2, 3))
            holdings.fetched(0.5, REF.id, (2, 3))
        case _:
            want(holdings, chunks=(2, 3))
    holdings.failed(1.0, REF.id, (0, 2), [], out, silent=[who(2)])
    assert out == []
    assert holdings.all_here() == {REF.id}


def silent_for(holdings: Holdings, seconds: float) -> None:
    """Its holder is asked again and again, until 1.0, and says nothing for so long."""
    for at in (1.0 - seconds, 1.0):
        want(holdings, at - RETRY_S)
        holdings.failed(at, REF.id, (0, 3), [], [], silent=[who(2)], suspicion_s=SUSPICION_S)


def test_who_was_silent_and_serves_after_all_is_a_holder_again_at_once() -> None:
    """Its link was bad for a while. What it alone has would be made again meanwhile, and wait for the end of doubt."""
    holdings = credited(2)
    silent_for(holdings, SUSPICION_S)
    assert want(holdings, 2.0) == (False, [Fetch(RUN, REF, 0, 3, (who(2),))])
    assert holdings.live_holders(REF.id, ALL) == ()
    holdings.fetched(3.0, REF.id, (0, 3))
    assert holdings.live_holders(REF.id, ALL) == (who(2), who(1))


def test_who_is_silent_again_is_doubted_longer() -> None:
    """It is asked once more only as nobody else has it."""
    holdings = credited(2)
    silent_for(holdings, SUSPICION_S)
    want(holdings, 2.0)
    holdings.failed(3.0, REF.id, (0, 3), [], [], silent=[who(2)], suspicion_s=SUSPICION_S)
    holdings.trust_again(1.0 + DISTRUST * SUSPICION_S)
    assert not holdings.is_live(REF.id, ALL)
    holdings.trust_again(3.0 + DISTRUST * SUSPICION_S)
    assert holdings.is_live(REF.id, ALL)


def test_who_serves_nothing_for_less_than_a_suspicion_time_is_a_holder_and_asked_again() -> None:
    """Its process stood still for a moment: nobody but itself would count what it alone has, for as long as doubts
    last."""
    holdings = credited(2)
    silent_for(holdings, 0.9 * SUSPICION_S)
    assert holdings.is_live(REF.id, ALL)
    assert want(holdings, 2.0) == (False, [Fetch(RUN, REF, 0, 3, (who(2),))])


def test_silence_before_a_shard_came_is_not_counted_with_later_silence() -> None:
    holdings = credited(2)
    silent_for(holdings, 0.9 * SUSPICION_S)
    want(holdings, 2.0)
    holdings.fetched(2.0, REF.id, (0, 3))
    holdings.lose(REF.id)
    want(holdings, 9.0)
    holdings.failed(9.5, REF.id, (0, 3), [], [], silent=[who(2)], suspicion_s=SUSPICION_S)
    assert holdings.is_live(REF.id, ALL)


def test_silence_before_a_chunk_came_is_not_counted_with_later_silence() -> None:
    """A large shard takes long over a slow link, on which its holder falls silent for a moment every now and then."""
    holdings = credited(2)
    silent_for(holdings, 0.9 * SUSPICION_S)
    want(holdings, 2.0)
    holdings.advanced(2.0 + SUSPICION_S, REF.id)
    holdings.failed(3.0 + SUSPICION_S, REF.id, (0, 3), [], [], silent=[who(2)], suspicion_s=SUSPICION_S)
    assert holdings.is_live(REF.id, ALL)


@pytest.mark.parametrize("is_dead", [True, False])
def test_whom_another_ones_silence_made_the_next_to_be_asked_has_a_suspicion_time_of_its_own(is_dead: bool) -> None:
    """Else its first moment of silence would be the end of what it alone has by then."""
    holdings = credited(2)
    silent_for(holdings, 0.9 * SUSPICION_S)
    holdings.credit(who(3), [REF.id])
    if is_dead:
        holdings.forget(who(2))
    want(holdings, 2.0)
    holdings.failed(1.0 + SUSPICION_S, REF.id, (0, 3), [], [], silent=[who(3)], suspicion_s=SUSPICION_S)
    assert who(3) in holdings.live_holders(REF.id, ALL)


def test_who_was_not_asked_for_long_was_not_silent_meanwhile() -> None:
    """What was wanted once, and again when a copy is tried anew, was asked for twice."""
    holdings, later = credited(2), 1.0 + 2 * DISTRUST * SUSPICION_S
    silent_for(holdings, 0.0)
    want(holdings, later)
    holdings.failed(later + 1.0, REF.id, (0, 3), [], [], silent=[who(2)], suspicion_s=SUSPICION_S)
    assert holdings.is_live(REF.id, ALL)


@pytest.mark.parametrize("missing", [[], [who(2)]])
def test_room_is_kept_where_holders_answered(missing: list[NodeId]) -> None:
    """Or two runs would pass it to and fro: it is asked for again in a moment."""
    holdings, out = credited(2), list[Action]()
    want(holdings)
    holdings.failed(1.0, REF.id, (0, 3), missing, out)
    assert out == []
    assert holdings.all_here() == {REF.id}


def test_parts_can_be_given_up_and_fetched_again() -> None:
    """They serve nobody else; what is whole, or on its way, stays."""
    holdings = credited(2)
    want(holdings, chunks=(0, 1))
    holdings.fetched(1.0, REF.id, (0, 1))
    other = shard("other", MIB)
    holdings.keep(other)
    out: list[Action] = []
    assert holdings.drop_parts(out)
    assert out == [Drop(RUN, (REF.id,))]
    assert holdings.all_here() == {other.id}
    assert want(holdings, chunks=(0, 1)) == (False, [Fetch(RUN, REF, 0, 1, (who(2),))])
    assert not holdings.drop_parts(out)


def test_a_dead_node_holds_nothing_any_more() -> None:
    """Shared memory dies with its process; a later life of it starts empty."""
    holdings = credited(2, 3)
    holdings.forget(who(2))
    assert holdings.live_holders(REF.id, ALL) == (who(3),)


def test_a_node_does_not_believe_others_about_itself() -> None:
    holdings = credited(1)
    assert holdings.live_holders(REF.id, ALL) == ()


def test_what_is_dropped_is_gone_and_its_late_arrival_is_nothing() -> None:
    """A fetch that was given up may still answer: the shard must not come back to life."""
    holdings = credited(2)
    want(holdings)
    out: list[Action] = []
    holdings.drop([REF.id], out)
    assert out == [Drop(RUN, (REF.id,))]
    assert not holdings.fetched(1.0, REF.id, (0, 3))
    assert not holdings.has(REF)
    assert holdings.all_here() == set()
    out.clear()
    holdings.drop([], out)
    assert out == []


def test_all_that_takes_memory_is_listed() -> None:
    """Freeing goes by this list: what is missing from it would stay for ever."""
    holdings = credited(2)
    holdings.keep(shard("own"))
    want(holdings, chunks=(0, 1))
    holdings.fetched(0.0, REF.id, (0, 1))
    other = shard("other")
    holdings.credit(who(3), [other.id])
    holdings.want(0.0, other, ALL, [])
    assert holdings.all_here() == {shard("own").id, REF.id, other.id}
    holdings.advanced(0.0, other.id)
    holdings.failed(0.0, other.id, (0, 1), [], [])
    assert other.id in holdings.all_here(), "what came of it still takes room"


def test_only_a_shard_under_way_advances_the_copy() -> None:
    """Following rests on it: chunks of something else are no progress of this run's copies."""
    holdings = credited(2)
    holdings.advanced(3.0, REF.id)
    assert holdings.advanced_at == 0.0
    want(holdings)
    holdings.advanced(4.0, REF.id)
    assert holdings.advanced_at == 4.0


def test_what_lies_here_for_another_end_is_asked_for_once_more_as_part_of_a_version() -> None:
    """A block may have the bytes of a version's moments: the store must learn that they may not give way any more."""
    holdings = credited()
    holdings.keep(REF)
    assert want(holdings) == (True, [])
    out: list[Action] = []
    assert not holdings.want(0.0, REF, ALL, out, product=Product.STATE)
    assert out == [Fetch(RUN, REF, 0, 3, (), product=Product.STATE)]
    holdings.fetched(0.0, REF.id, (0, 3))
    assert holdings.want(0.0, REF, ALL, [], product=Product.STATE)
    holdings.shed(0.0, REF.id)
    holdings.keep(REF)
    assert not holdings.want(1.0, REF, ALL, [], product=Product.STATE), "it was made again, and not as state"


def test_what_only_members_hold_that_are_apart_is_brought_near_first() -> None:
    """Who cannot talk to any holder asks a member that can, and fetches from that one."""
    holdings = credited(2)
    holdings.reroute({who(2): who(3)})
    assert want(holdings, chunks=(1, 2)) == (False, [Send(who(3), Bring(RUN, REF, 1, 2, who(2)))])
    assert want(holdings, chunks=(1, 2)) == (False, [])
    holdings.brought_near(who(3), REF.id, (1, 2))
    assert want(holdings, chunks=(1, 2)) == (False, [Fetch(RUN, REF, 1, 2, (who(3),))])


def test_a_relay_that_does_not_answer_is_asked_again() -> None:
    """Any message may be lost."""
    holdings = credited(2)
    holdings.reroute({who(2): who(3)})
    want(holdings)
    assert want(holdings, now=BRING_S) == (False, [Send(who(3), Bring(RUN, REF, 0, 3, who(2)))])


def test_where_one_relay_brings_nothing_another_holder_has_its_turn() -> None:
    """The holder may have lost the shard, or the relay has no room: neither tells who asked."""
    holdings = credited(2, 4)
    holdings.reroute({who(2): who(3), who(4): who(5)})
    asked: list[NodeId] = []
    for look in range(2 * BRING_ASKS + 1):
        _, out = want(holdings, now=look * BRING_S)
        asked += [each.message.holder for each in out if isinstance(each, Send)]
    first, *rest = asked[::BRING_ASKS]
    assert {first, *rest} == {who(2), who(4)}
    assert asked == [first] * BRING_ASKS + [rest[0]] * BRING_ASKS + [first]


def test_what_was_asked_for_in_vain_is_forgotten_with_the_step_that_wanted_it() -> None:
    """A run of many steps would remember every shard that came too late."""
    holdings = credited(2)
    holdings.reroute({who(2): who(3)})
    want(holdings)
    holdings.know_only([shard("other").id])
    assert (holdings.near, holdings.asks, holdings.retry_at) == ({}, {}, {})


def test_of_two_holders_the_one_that_can_be_talked_to_is_asked() -> None:
    holdings = credited(2, 4)
    holdings.reroute({who(2): who(3)})
    assert want(holdings) == (False, [Fetch(RUN, REF, 0, 3, (who(4),))])


def test_the_silence_of_a_member_that_is_apart_makes_no_liar_of_it() -> None:
    """It holds what it says, and others fetch from it."""
    holdings = credited(2)
    holdings.reroute({who(2): who(3)})
    holdings.failed(0.0, REF.id, (0, 3), (), [], silent=(who(2),))
    assert holdings.is_live(REF.id, ALL)
