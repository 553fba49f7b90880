from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dflow_protocols.membership.awareness import Awareness
from dflow_protocols.membership.broadcast import MAX_JOINS, Broadcast, retransmit_limit
from dflow_protocols.membership.claim import RANK, age, newer
from dflow_protocols.membership.probe import Prober
from dflow_protocols.membership.suspicion import Suspicion, suspicion_timeout_s
from dflow_protocols.membership.timing import Timing
from dflow_protocols.names import NodeId
from dflow_protocols.wire.gossip import MemberState, MetaId, Update

NODE = NodeId("0a" * 16)
OTHERS = [NodeId(f"{i:032x}") for i in range(40)]

claims = st.builds(
    Update,
    node=st.just(NODE),
    incarnation=st.integers(0, 3),
    refutation=st.integers(0, 3),
    state=st.sampled_from(sorted(RANK)),
    meta=st.sampled_from([MetaId("0c" * 32), MetaId("0d" * 32)]),
    by=st.sampled_from([None, OTHERS[1], OTHERS[2]]),
)


def claim(incarnation: int, refutation: int, state: MemberState, node: NodeId = NODE) -> Update:
    return Update(node, incarnation, refutation, state, MetaId("0c" * 32), None)


@pytest.mark.parametrize(
    ("confirmed", "wanted", "seconds"),
    [(0, 3, 30.0), (1, 3, 16.0), (2, 3, 7.81), (3, 3, 2.0), (4, 3, 2.0), (5, 3, 2.0), (0, 0, 2.0)],
)
def test_a_suspicion_shrinks_with_each_confirmation(confirmed: int, wanted: int, seconds: float) -> None:
    """memberlist's own table, 2 to 30 s: many who agree are not all slow at once (Lifeguard IV-B)."""
    assert suspicion_timeout_s(confirmed, wanted, 2.0, 30.0) == pytest.approx(seconds, abs=0.01)


def test_one_accuser_counts_once() -> None:
    """A suspicion that comes back by gossip is no confirmation of itself."""
    suspicion = Suspicion(0.0, OTHERS[0], others=5, least_s=2.0, most_s=30.0)
    assert not suspicion.confirm(OTHERS[0])
    assert suspicion.confirm(OTHERS[1])
    assert not suspicion.confirm(OTHERS[1])
    assert suspicion.deadline < 30.0


def test_a_suspicion_that_nobody_can_confirm_waits_no_longer() -> None:
    """In a mesh of two or three the longer wait would only delay: there is nobody to hear from."""
    assert Suspicion(5.0, OTHERS[0], others=1, least_s=2.0, most_s=30.0).deadline == 7.0


@pytest.mark.parametrize(("members", "seconds"), [(1, 4.0), (5, 4.0), (10, 4.0), (100, 5.6), (1000, 7.2)])
def test_the_time_to_refute_grows_with_the_logarithm_of_the_mesh(members: int, seconds: float) -> None:
    """News needs that long to reach the suspect and to come back (SWIM section 4.2)."""
    assert Timing.lan().suspicion_s(members) == pytest.approx(seconds)


@pytest.mark.parametrize(("members", "times"), [(1, 4), (9, 4), (10, 8), (99, 8), (999, 12)])
def test_news_is_told_a_logarithm_of_times(members: int, times: int) -> None:
    """Enough that all hear it with high probability (SWIM section 4.1)."""
    assert retransmit_limit(members) == times


@pytest.mark.parametrize(("notes", "factor"), [([], 1), ([1], 2), ([1, 1, -1], 2), ([1] * 9, 4), ([-1], 1)])
def test_an_unhealthy_node_waits_longer_within_bounds(notes: list[int], factor: int) -> None:
    """Lifeguard IV-A: the multiplier runs from 1 to its number of steps and never below."""
    awareness = Awareness(4)
    for delta in notes:
        awareness.note(delta)
    assert awareness.stretch(0.5) == 0.5 * factor


@given(claims, claims, claims)
def test_members_agree_in_whatever_order_claims_arrive(a: Update, b: Update, c: Update) -> None:
    """The merge is commutative, associative and idempotent, so gossip needs neither order nor exactly-once."""
    assert newer(a, b) == newer(b, a)
    assert newer(a, newer(b, c)) == newer(newer(a, b), c)
    assert newer(a, a) == a


@given(claims, claims)
def test_what_is_newer_never_looks_older(a: Update, b: Update) -> None:
    """The table replaces by age alone; the merge must not disagree with it."""
    assert age(newer(a, b)) == max(age(a), age(b))


def test_a_denial_outranks_the_death_it_denies_and_a_new_life_all_of_them() -> None:
    """Refutation must win at once, and what is said of an old life must not touch the new one."""
    ordered = [  # oldest first
        claim(1, 0, "alive"),
        claim(1, 0, "suspect"),
        claim(1, 0, "dead"),
        claim(1, 1, "alive"),
        claim(1, 1, "left"),
        claim(2, 0, "alive"),
    ]
    for older, later in pairwise(ordered):
        assert newer(later, older) == later


def test_deaths_are_told_before_joins() -> None:
    """Work waits for the news of a death; a joiner can wait for its own."""
    news = Broadcast()
    for node in OTHERS[:30]:
        news.put(claim(1, 0, "alive", node))
    news.put(claim(1, 0, "dead", OTHERS[30]))
    assert news.take(40, 4)[0].node == OTHERS[30]


def test_each_claim_gets_its_turns_and_then_rests() -> None:
    """Nothing starves behind newer news, and a calm mesh has nothing to tell."""
    news = Broadcast()
    for node in OTHERS[:30]:
        news.put(claim(1, 0, "alive", node))
    told: list[NodeId] = []
    while len(news):
        told += [update.node for update in news.take(9, 7)]
    assert all(told.count(node) == retransmit_limit(9) for node in OTHERS[:30])


def test_of_a_wave_of_joins_the_latest_are_told_and_all_else_that_happens() -> None:
    """A thousand members that join at once are told of by push-pulls; whom somebody suspects must hear of it."""
    news = Broadcast()
    news.put(claim(1, 0, "suspect", OTHERS[0]))
    for node in OTHERS[1 : MAX_JOINS + 10]:
        news.put(claim(1, 0, "alive", node), is_join=True)
    told = [update.node for _ in range(100) for update in news.take(len(OTHERS))]
    assert set(told) == {OTHERS[0], *OTHERS[10 : MAX_JOINS + 10]}
    assert not len(news)


def test_newer_news_of_a_member_replaces_the_older() -> None:
    """A suspicion that was denied meanwhile must not go on spreading."""
    news = Broadcast()
    news.put(claim(1, 0, "suspect"))
    news.put(claim(1, 1, "alive"))
    assert news.take(9) == (claim(1, 1, "alive"),)


def test_every_member_is_probed_once_a_round() -> None:
    """The round-robin bounds the time to detection, which a draw with replacement does not (SWIM section 4.3)."""
    prober = Prober(Random(1))
    for _ in range(3):
        assert sorted(prober.next_target(OTHERS) or "" for _ in OTHERS) == sorted(OTHERS)


def test_a_joiner_is_probed_within_the_round_it_joined_in() -> None:
    """Else a wave of joiners would put off the probes of all others."""
    prober = Prober(Random(1))
    prober.next_target(OTHERS[:-1])
    prober.add(OTHERS[-1])
    assert OTHERS[-1] in [prober.next_target(OTHERS) for _ in OTHERS[1:]]


@pytest.mark.parametrize("timing", [Timing.lan(), Timing.wan(), Timing.local()])
def test_a_sites_times_fit_each_other(timing: Timing) -> None:
    """A suspect is probed again before it is buried, and the dead are asked more often than for ever."""
    assert timing.suspicion_s(1) > 2 * timing.probe_interval_s
    assert timing.gossip_interval_s < timing.probe_interval_s
    assert timing.suspicion_max_s(10) == pytest.approx(timing.suspicion_factor * timing.suspicion_s(10))
