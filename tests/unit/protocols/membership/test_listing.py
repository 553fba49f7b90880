"""What is kept up to date one change at a time says what would be found by looking at all."""

from __future__ import annotations

from typing import Any, get_args

from hypothesis import given
from hypothesis import strategies as st

from dflow_protocols.membership.broadcast import MAX_RIDERS, Broadcast, retransmit_limit
from dflow_protocols.membership.claim import is_up
from dflow_protocols.membership.sorted_ids import SortedIds
from dflow_protocols.names import NodeId
from dflow_protocols.wire.gossip import MemberState, MetaId, Update
from tests.support.draws import draws

IDS = st.sampled_from([NodeId(digit * 32) for digit in "0123456789abcdef"])


@draws(200)
@given(st.lists(st.tuples(IDS, st.booleans())))
def test_sorted_ids_are_a_sorted_set(changes: list[tuple[NodeId, bool]]) -> None:
    """Whatever is put in and taken out, twice or without having been there."""
    kept, known = SortedIds(), set[NodeId]()
    for node, is_in in changes:
        kept.keep(node, is_in)
        known = known | {node} if is_in else known - {node}
        assert (kept.read(), len(kept)) == (tuple(sorted(known)), len(known))


@draws(200)
@given(st.lists(st.tuples(IDS, st.sampled_from([*get_args(MemberState), "tell", "drop"]))))
def test_the_most_urgent_news_is_told_first(happenings: list[tuple[NodeId, Any]]) -> None:
    """Deaths, then what was told least, then the newest: as a search through all of it finds."""
    news, known, age = Broadcast(), dict[NodeId, list[Any]](), 0
    for node, what in happenings:
        age -= 1
        if what == "tell":
            order = sorted(known.values(), key=lambda told: told[:3])[:MAX_RIDERS]
            assert news.take(9) == tuple(told[3] for told in order)
            for told in order:
                told[1] += 1
            known = {of: told for of, told in known.items() if told[1] != retransmit_limit(9)}
        elif what == "drop":
            news.drop(node)
            known.pop(node, None)
        else:
            claim = Update(node, 1, 0, what, MetaId("00"), None)
            news.put(claim)
            known[node] = [is_up(claim.state), 0, age, claim]
        assert len(news) == len(known)
