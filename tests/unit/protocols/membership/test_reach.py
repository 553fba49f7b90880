"""Who is apart, and which way frames go round: derived from what each says of itself. Who cannot be dialled."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dflow_protocols.events import Dial, LaneFailed, LaneOpened, Received, Send, Tick
from dflow_protocols.membership.machine import Membership
from dflow_protocols.membership.reach import MAX_HOPS, find_routes
from dflow_protocols.names import NodeId
from dflow_protocols.wire.gossip import MAX_APART, Gossip, MemberState, Ping, Unreachable
from tests.unit.protocols.books import who
from tests.unit.protocols.membership.mesh import Host, Mesh


def nodes(count: int) -> list[NodeId]:
    return [who(number) for number in range(1, count + 1)]


def apart_but(links: set[tuple[NodeId, NodeId]], members: list[NodeId]) -> dict[NodeId, tuple[NodeId, ...]]:
    """What all say where only these pairs can talk."""
    return {
        node: tuple(o for o in members if o != node and (node, o) not in links and (o, node) not in links)
        for node in members
    }


def test_where_all_talk_to_all_nothing_goes_round() -> None:
    assert find_routes(who(1), {}, nodes(5)[1:]) == {}


def test_a_line_is_walked_from_end_to_end() -> None:
    """Each hop goes by its own view, and comes one nearer."""
    members = nodes(5)
    apart = apart_but(set(pairwise(members)), members)
    assert find_routes(members[0], apart, members[1:]) == dict.fromkeys(members[2:], members[1])
    assert find_routes(members[2], apart, [m for m in members if m != members[2]]) == {
        members[0]: members[1],
        members[4]: members[3],
    }


def test_the_word_of_one_of_two_is_enough() -> None:
    """Who is not heard does not know it: the other tells."""
    assert find_routes(who(1), {who(2): (who(1),)}, [who(2), who(3)]) == {who(2): who(3)}


def test_who_no_way_leads_to_has_no_route() -> None:
    members = nodes(3)
    apart = {members[0]: (members[2],), members[1]: (members[2],)}
    assert find_routes(members[0], apart, members[1:]) == {}


def test_of_several_relays_not_one_bears_all() -> None:
    """A hub that all used would be the slowest host's network for everybody."""
    members = nodes(40)
    far = members[20:]
    found = find_routes(members[0], {members[0]: tuple(far)}, members[1:])
    assert found.keys() == set(far)
    assert len(set(found.values())) > 5


@given(st.integers(2, 9), st.data())
def test_frames_that_follow_the_routes_arrive_and_never_go_in_circles(count: int, data: st.DataObject) -> None:
    """Each hop decides by its own view of the same claims: the distance left must shrink with each."""
    members = nodes(count)
    pairs = [(a, b) for a in members for b in members if a < b]
    links = set(data.draw(st.lists(st.sampled_from(pairs), unique=True)))
    apart = apart_but(links, members)
    for origin in members:
        for to, hop in find_routes(origin, apart, [m for m in members if m != origin]).items():
            at, hops = hop, 1
            while at != to:
                at = find_routes(at, apart, [m for m in members if m != at]).get(to, to)
                hops += 1
                assert hops <= MAX_HOPS + 1


def silent(mesh: Mesh) -> tuple[Membership, Host]:
    """A node, and a member that lives and has said nothing to it for a suspicion time, as is usual among so many."""
    mesh.start_all()
    life, other = mesh.hosts[0].life, mesh.hosts[1]
    assert life is not None
    assert mesh.until(lambda: mesh.all_see("alive", *range(len(mesh.hosts))), 30.0)
    assert mesh.until(lambda: mesh.now - life.members[other.node].heard > life.suspicion_s(), 30.0)
    return life, other


def test_who_was_silent_when_its_lane_failed_is_asked_and_its_word_proves_that_it_cannot_be_dialled() -> None:
    """Else the failure passes, and this node is everybody's way to a member that nobody can dial."""
    mesh = Mesh(16, seed=2)
    life, other = silent(mesh)
    told = life.handle(mesh.now, LaneFailed(other.node, "bulk", other.meta.bulk))
    (ping,) = [a.message for a in told if isinstance(a, Send) and isinstance(a.message, Ping) and a.to == other.node]
    assert not life.reach.unreached
    assert other.life is not None
    for action in other.life.handle(mesh.now, Received(mesh.id(0), ping)):
        if isinstance(action, Send) and action.to == mesh.id(0):
            life.handle(mesh.now, Received(other.node, action.message))
    told = life.handle(life.deadline, Tick())
    assert Send(other.node, Unreachable("bulk", other.meta.bulk)) in told
    assert set(life.reach.unreached) == {other.node}
    life.check()


def test_who_stays_silent_when_its_lane_failed_is_merely_away() -> None:
    """A split, say, that heals later: that its address does not answer then says nothing of the address."""
    mesh = Mesh(16, seed=2)
    life, other = silent(mesh)
    mesh.cut(range(16), range(16))
    failed_at = mesh.now
    life.handle(failed_at, LaneFailed(other.node, "bulk", other.meta.bulk))
    life.handle(max(life.deadline, failed_at + 1.1 * life.suspicion_s()), Tick())
    life.observe(failed_at + 1.2 * life.suspicion_s(), other.node, None)
    life.handle(max(life.deadline, failed_at + 1.2 * life.suspicion_s()), Tick())
    assert not life.reach.unreached


def test_who_was_silent_and_answers_at_its_address_after_all_can_be_dialled() -> None:
    mesh = Mesh(16, seed=2)
    life, other = silent(mesh)
    life.handle(mesh.now, LaneFailed(other.node, "bulk", other.meta.bulk))
    life.handle(mesh.now, LaneOpened(other.node, "bulk"))
    life.observe(mesh.now, other.node, None)
    life.handle(life.deadline, Tick())
    assert not life.reach.unreached


def test_the_dead_leave_room_for_the_living_among_those_that_a_node_cannot_talk_to() -> None:
    """A rack without power is many hosts that cannot be dialled. Frames for a living one would go through a node that
    cannot dial it either."""
    mesh = Mesh(3, seed=2)
    mesh.start_all()
    assert mesh.until(lambda: mesh.all_see("alive", 0, 1, 2), 30.0)
    life, other = mesh.hosts[0].life, mesh.hosts[1]
    assert life is not None
    claim = life.members[other.node].claim
    for number in range(1, MAX_APART + 1):
        gone = replace(claim, node=who(number), state="dead", by=mesh.id(2))
        life.handle(mesh.now, Received(mesh.id(2), Gossip((gone,))))
        life.reach.fail(who(number), "bulk", other.meta.bulk)
    life.reach.fail(other.node, "bulk", other.meta.bulk)
    life.handle(life.deadline, Tick())
    told = life.members[mesh.id(0)].claim.apart
    assert len(told) == MAX_APART
    assert other.node in told
    assert list(told) == sorted(told)


@pytest.mark.parametrize("state", ["alive", "suspect"])
def test_who_is_held_dead_before_it_spoke_and_comes_back_cannot_be_dialled_until_it_was(state: MemberState) -> None:
    """Its return is the word that would have proved it; and perhaps it was away when the lane failed. It may be
    suspected again before this node hears of its return."""
    mesh = Mesh(16, seed=2)
    life, other = silent(mesh)
    life.handle(mesh.now, LaneFailed(other.node, "bulk", other.meta.bulk))
    claim = life.members[other.node].claim
    gone, back = (
        replace(claim, state="dead", by=mesh.id(2)),
        replace(claim, refutation=claim.refutation + 1, state=state),
    )
    life.handle(mesh.now, Received(mesh.id(2), Gossip((gone,))))
    assert other.node not in life.alive()
    told = life.handle(mesh.now, Received(mesh.id(2), Gossip((back,))))
    assert set(life.reach.unreached) == {other.node}
    assert [action.node for action in told if isinstance(action, Dial)] == [other.node]
    life.handle(mesh.now, LaneOpened(other.node, "bulk"))
    assert not life.reach.unreached
    life.check()
