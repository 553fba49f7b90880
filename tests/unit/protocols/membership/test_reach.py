"""Who is apart, and which way frames go round: derived from what each says of itself."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from dflow_protocols.membership.reach import MAX_HOPS, find_routes
from dflow_protocols.names import NodeId
from tests.unit.protocols.books import who


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
