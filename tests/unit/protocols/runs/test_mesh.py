"""The mesh that runs see: what is kept of it is always what membership says, derived from scratch."""

from __future__ import annotations

from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dflow_protocols.events import LaneFailed, LaneOpened, Received
from dflow_protocols.membership.machine import Membership
from dflow_protocols.membership.table import UNSTEADY_FOR
from dflow_protocols.membership.timing import Timing
from dflow_protocols.names import NodeId
from dflow_protocols.runs.mesh import Mesh
from dflow_protocols.wire.gossip import Gossip, MemberState, Sync, Unreachable, Update
from tests.unit.protocols.membership.mesh import meta_of

NODES = 4
ME = meta_of(0)
others = st.integers(1, NODES - 1)

changes = st.one_of(
    st.tuples(st.just("greets"), others),
    st.tuples(
        st.just("claims"),
        others,
        st.integers(1, 2),
        st.integers(0, 2),
        st.sampled_from(["alive", "suspect", "dead", "left"]),
        st.booleans(),
        st.lists(st.integers(0, NODES - 1), max_size=2),
    ),
    st.tuples(st.just("unreached"), others),
    st.tuples(st.just("reached"), others),
    st.tuples(st.just("complains"), others),
    st.tuples(st.just("drained"), st.booleans()),
    st.tuples(st.just("later"), st.floats(0.0, 3.0)),
    st.tuples(st.just("says"), st.booleans(), st.sampled_from(["", "no device"])),
)


def claim_of(
    number: int, incarnation: int, refutation: int, state: MemberState, drained: bool, apart: list[int]
) -> Update:
    meta = meta_of(number)
    parted = tuple(sorted(meta_of(other).node for other in set(apart) - {number}))
    return Update(meta.node, incarnation, refutation, state, meta.id, None, drained, parted)


def change(life: Membership, now: float, what: str, *of: Any) -> None:
    """One thing that may happen to the members, or to the lanes to them."""
    match what, *of:
        case "greets", number:
            hello = claim_of(number, 1, 0, "alive", False, [])
            life.handle(now, Received(hello.node, Sync(False, meta_of(number), (hello,))))
        case "claims", number, *rest:
            teller = meta_of(1 + number % (NODES - 1)).node
            life.handle(now, Received(teller, Gossip((claim_of(number, *rest),))))
        case "unreached", number:
            life.handle(now, LaneFailed(meta_of(number).node, "bulk", meta_of(number).bulk))
        case "reached", number:
            life.handle(now, LaneOpened(meta_of(number).node, "bulk"))
        case "complains", number:
            life.handle(now, Received(meta_of(number).node, Unreachable("bulk", ME.bulk)))
        case "drained", is_drained:
            life.drain(now, is_drained)


def test_a_member_is_stable_once_it_has_lived_for_a_while() -> None:
    """Nothing tells of that but time; rosters are made of who is."""
    life = Membership(ME.node, 1, ME, Timing.local(), Random(1), [], [], 0.0)
    mesh, stable_s = Mesh(life, ME, slots=1), Timing.local().stable_s
    change(life, 0.0, "greets", 1)
    change(life, stable_s / 2, "greets", 2)

    def stable(now: float) -> set[NodeId]:
        return set(mesh.view(now, is_gathered=True, is_shared=False, unable="").stable)

    assert stable(stable_s * 0.9) == {ME.node}
    assert stable(stable_s) == {ME.node, meta_of(1).node}
    assert stable(stable_s * 1.5) == {ME.node, meta_of(1).node, meta_of(2).node}


def suspect(life: Membership, now: float, number: int, times: int) -> None:
    """It is suspected so often, and denies it each time."""
    for refutation in range(times):
        change(life, now, "claims", number, 1, refutation, "suspect", False, [])
        change(life, now, "claims", number, 1, refutation + 1, "alive", False, [])


def stable_of(mesh: Mesh, now: float) -> set[NodeId]:
    return set(mesh.view(now, is_gathered=True, is_shared=False, unable="").stable)


def test_who_was_suspected_twice_of_late_is_not_stable() -> None:
    """Its cable is loose: whoever is dealt to is waited for at each seal and each fetch. Once may be chance."""
    life = Membership(ME.node, 1, ME, Timing.local(), Random(1), [], [], 0.0)
    mesh, now = Mesh(life, ME, slots=1), Timing.local().stable_s
    for number in range(1, NODES):
        change(life, 0.0, "greets", number)
    everybody = {meta_of(number).node for number in range(NODES)}
    suspect(life, now, 1, times=1)
    assert stable_of(mesh, now) == everybody
    suspect(life, now, 2, times=2)
    assert stable_of(mesh, now) == everybody - {meta_of(2).node}
    assert stable_of(mesh, now + UNSTEADY_FOR * life.suspicion_s()) == everybody


def test_where_most_are_suspected_again_and_again_all_are_stable() -> None:
    """Then it is the network, or this node; a step dealt to itself alone would be done by nobody else."""
    life = Membership(ME.node, 1, ME, Timing.local(), Random(1), [], [], 0.0)
    mesh, now = Mesh(life, ME, slots=1), Timing.local().stable_s
    for number in range(1, NODES):
        change(life, 0.0, "greets", number)
    for number in (1, 2):
        suspect(life, now, number, times=2)
    assert stable_of(mesh, now) == {meta_of(number).node for number in range(NODES)}


@settings(deadline=None)
@given(st.lists(changes, max_size=30))
def test_what_is_kept_of_the_mesh_is_what_membership_says(told: list[tuple[Any, ...]]) -> None:
    """Whatever changes, and in whatever order: else a node would deal work to the dead, or leave out the living."""
    life = Membership(ME.node, 1, ME, Timing.local(), Random(1), [], [], 0.0)
    kept, now = Mesh(life, ME, slots=1), 0.0
    says: dict[str, Any] = {"is_gathered": True, "is_shared": False, "unable": ""}
    for what, *of in told:
        if what == "later":
            now += of[0]
        elif what == "says":
            says = {"is_gathered": of[0], "is_shared": of[0], "unable": of[1]}
        else:
            change(life, now, what, *of)
        fresh = Mesh(life, ME, slots=1)
        assert kept.living() == fresh.living()
        assert kept.view(now, **says) == fresh.view(now, **says)
        assert kept.view(now, **says) is kept.view(now, **says), "it costs nothing while nothing changes"


def test_whom_all_others_tell_that_they_cannot_dial_it_is_cut_off() -> None:
    """By the word of some it is not: those fetch from it, and bring to the others what it made."""
    life = Membership(ME.node, 1, ME, Timing.local(), Random(1), [], [], 0.0)
    mesh = Mesh(life, ME, slots=1)
    for number in range(1, NODES):
        change(life, 0.0, "greets", number)
    for number in range(1, NODES):
        assert not mesh.view(0.0, is_gathered=True, is_shared=False, unable="").is_cut_off
        change(life, 0.0, "complains", number)
    assert mesh.view(0.0, is_gathered=True, is_shared=False, unable="").is_cut_off
