"""Which of two claims about one member is newer: a total order, so that all who heard the same believe the same."""

from __future__ import annotations

from typing import Final

from ..names import NodeId
from ..wire.gossip import MAX_APART, MemberState, MetaId, Update

RANK: Final[dict[MemberState, int]] = {"alive": 0, "suspect": 1, "dead": 2, "left": 3}
MAX_COUNT: Final = 1 << 53  # of incarnations and refutations; a claim beyond it is nonsense and would outbid for ever


def age(claim: Update) -> tuple[int, int, int, MetaId, bool, tuple[NodeId, ...]]:
    """Greater is newer: a later life, then a later denial, then the worse state; leaving is final within a life."""
    return claim.incarnation, claim.refutation, RANK[claim.state], claim.meta, claim.drained, claim.apart


def newer(a: Update, b: Update) -> Update:
    """The one of two claims about one member that holds. Commutative, associative, idempotent."""
    assert a.node == b.node
    return max(a, b, key=_order)


def _order(claim: Update) -> tuple[int, int, int, MetaId, bool, tuple[NodeId, ...], NodeId | str]:
    return *age(claim), claim.by or ""


def is_up(state: MemberState) -> bool:
    """A suspect counts as living until it is dead."""
    return state in ("alive", "suspect")


def is_sane(claim: Update) -> bool:
    """Whether a claim may be believed at all; only a broken peer makes one that may not."""
    return claim.incarnation < MAX_COUNT and claim.refutation < MAX_COUNT and len(claim.apart) <= MAX_APART
