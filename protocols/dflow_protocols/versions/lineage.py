"""Lineage: the versions that led to a node's own, and who came that way with it.

Two halves of a split make versions of their own. Where they differ, one chain wins the fork choice, and who copies its
head gives the other up: a lost branch. What it cost is a matter of where the chains part, so a node remembers its own
chain a while back, and a copied header comes with the one before it. Knows nothing of how a head is chosen.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from ..names import NodeId
from ..wire.steps import Head

MAX_ANCESTRY = 256  # versions before the own one; of a branch that is longer only so much is counted


@dataclass(frozen=True, slots=True)
class LostBranch:
    """What fork choice took from those who were on it. `teller`: who of them says so, for all."""

    fork_step: int  # the newest step whose version both chains share, or the oldest remembered one
    head: Head  # the best version of the branch that this node knew of
    steps: int
    samples: int
    teller: NodeId


@dataclass
class Lineage:
    me: NodeId
    chain: dict[int, Head] = field(default_factory=dict)  # by step, oldest first
    company: dict[NodeId, Head] = field(default_factory=dict)  # the newest version on this chain that another claimed

    def extend(self, head: Head, claims: Mapping[NodeId, Head]) -> None:
        """The next version of the own chain, or the first."""
        self.chain[head.step] = head
        while len(self.chain) > MAX_ANCESTRY + 1:
            del self.chain[next(iter(self.chain))]
        for node, claimed in claims.items():
            self.see(node, claimed)

    def before(self, head: Head) -> tuple[Head, ...]:
        """The versions that led to `head`, newest first; none if it is not on the own chain."""
        if self.chain.get(head.step) != head:
            return ()
        return tuple(each for step, each in reversed(self.chain.items()) if step < head.step)

    def see(self, node: NodeId, head: Head) -> None:
        """Another node claims this version."""
        if self.chain.get(head.step) == head:
            self.company[node] = head

    def switch(
        self, head: Head, before: Iterable[Head], claims: Mapping[NodeId, Head], living: Collection[NodeId]
    ) -> LostBranch | None:
        """Another chain is the own one now: `before` are the versions that led to `head`. None if it is the same
        chain further on, or where they part is beyond what is remembered."""
        old, company = self.chain, self.company
        chain = sorted((*before, head), key=lambda each: each.step)[-MAX_ANCESTRY - 1 :]
        self.chain, self.company = {each.step: each for each in chain}, {}
        for node, claimed in claims.items():
            self.see(node, claimed)
        shared = [step for step, each in self.chain.items() if old.get(step) == each]
        if not old or (not shared and max(old) < min(self.chain)):
            return None
        fork_step = max(shared, default=min(old))
        lost = {node: each for node, each in company.items() if each.step > fork_step and node in living}
        lost[self.me] = old[max(old)]
        if lost[self.me].step <= fork_step:
            return None
        best = min(lost.values(), key=lambda each: (-each.samples, -each.step, each.version))
        at_fork = old[fork_step] if fork_step in old else old[min(old)]
        return LostBranch(fork_step, best, best.step - fork_step, best.samples - at_fork.samples, min(lost))

    def forget(self, node: NodeId) -> None:
        self.company.pop(node, None)


def is_chain(head: Head, before: tuple[Head, ...]) -> bool:
    """Whether `before` can be the versions that led to `head`: newest first, a step apart, never more samples."""
    after = head
    for each in before:
        if each.step != after.step - 1 or each.samples > after.samples:
            return False
        after = each
    return len(before) <= MAX_ANCESTRY
