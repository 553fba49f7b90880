from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dflow_protocols.events import Received, Report, Send, Tick
from dflow_protocols.membership.claim import RANK
from dflow_protocols.wire.codec import encode
from dflow_protocols.wire.gossip import GOSSIP_MESSAGES, Gossip, Sync, SyncAsk, Update
from tests.support.draws import draws
from tests.unit.protocols.membership.mesh import Mesh, meta_of
from tests.unit.protocols.wire.values import values_of

METAS = [meta_of(index) for index in range(6)]
COUNTS = st.integers(0, 3) | st.integers(0, 2**63 - 1)
CLAIMS = st.builds(
    Update,
    node=st.sampled_from([meta.node for meta in METAS]),
    incarnation=COUNTS,
    refutation=COUNTS,
    state=st.sampled_from(sorted(RANK)),
    meta=st.sampled_from([meta.id for meta in METAS]),
    by=st.none() | st.sampled_from([meta.node for meta in METAS]),
)
LIES = st.lists(CLAIMS, max_size=6).map(tuple)
MESSAGES = st.one_of(
    *(values_of(cls) for cls in GOSSIP_MESSAGES),
    st.builds(Gossip, LIES),
    st.builds(Sync, st.booleans(), st.sampled_from(METAS), LIES),
)
SOURCES = st.sampled_from([meta.node for meta in METAS])
EVENTS = st.lists(st.tuples(st.floats(0.0, 3.0), SOURCES, st.none() | MESSAGES), max_size=30)


@draws(150)
@given(EVENTS)
def test_nothing_that_a_peer_says_breaks_a_member(events: Iterable[tuple[float, Any, Any]]) -> None:
    """A member with the right key may lie about everything: all invariants hold, and all that is sent can travel."""
    mesh = Mesh(1, seed=0)
    mesh.start(0)
    life = mesh.hosts[0].life
    assert life is not None
    now = 0.0
    for pause_s, source, message in events:
        now += pause_s
        actions = life.handle(now, Tick() if message is None else Received(source, message))
        life.check()
        for action in actions:
            if isinstance(action, Send):
                encode(action.message)
        assert mesh.id(0) in life.alive()


def test_a_mesh_outlives_a_member_that_slanders_everybody() -> None:
    """Suspicions are cheap to utter; each victim refutes, and nobody is buried."""
    mesh = Mesh(5, seed=1)
    mesh.start_all()
    assert mesh.until(lambda: mesh.all_see("alive", *range(5)), 10.0)
    liar = mesh.id(4)
    for _ in range(40):
        for index in range(4):
            life = mesh.hosts[index].life
            assert life is not None
            others = [life.members[mesh.id(i)].claim for i in range(4)]
            lies = tuple(dataclasses.replace(claim, state="suspect", by=liar) for claim in others)
            mesh.tell(index, liar, Gossip(lies))
        mesh.run(0.5)
    mesh.run(5.0)
    assert mesh.deaths() == []
    assert mesh.all_see("alive", *range(5))


@pytest.mark.parametrize("asked", ["whether it differs", "for everything"])
def test_who_asks_for_the_books_again_and_again_gets_them_now_and_then(asked: str) -> None:
    """A frame holds thousands of such asks of a few bytes each; the answer is as long as the mesh is large."""
    mesh = Mesh(2, seed=3)
    mesh.start_all()
    assert mesh.until(lambda: mesh.all_see("alive", 0, 1), 10.0)
    life = mesh.hosts[0].life
    assert life is not None
    ask = SyncAsk(b"another") if asked == "whether it differs" else Sync(True, meta_of(1), ())

    def answers(now: float) -> int:
        told = [action for _ in range(100) for action in life.handle(now, Received(mesh.id(1), ask))]
        return sum(isinstance(action, Send) and isinstance(action.message, Sync) for action in told)

    now = mesh.now + 1.0
    assert answers(now) == 1
    assert answers(now + life.timing.gossip_interval_s) == 1


def test_a_claim_beyond_all_counts_is_refused_and_reported() -> None:
    """One such claim, believed, could never be outbid: its victim would be dead for ever."""
    mesh = Mesh(2, seed=2)
    mesh.start_all()
    assert mesh.until(lambda: mesh.all_see("alive", 0, 1), 10.0)
    life = mesh.hosts[0].life
    assert life is not None
    claim = dataclasses.replace(life.members[mesh.id(1)].claim, incarnation=2**60, state="dead")
    told = life.handle(mesh.now, Received(mesh.id(1), Gossip((claim,))))
    assert [action.name for action in told if isinstance(action, Report)] == ["membership.bad_claim"]
    assert mesh.view(0)[mesh.id(1)] == "alive"
