"""Backlog: what must still wait at each member, as far as this node's books tell."""

from __future__ import annotations

from collections import Counter

from ..names import NodeId
from ..pipeline.plan import Chain
from .batch import Batch, leaf_homes
from .view import StepView, partition_homes


def known_backlog(view: StepView, chains: tuple[Chain, ...], batch: Batch | None) -> Counter[NodeId]:
    """Unfinished units by home, without those that somebody claims. Too high where the books lack records: then the
    member's own word is right."""
    found: Counter[NodeId] = Counter()
    for chain in chains:
        for unit, home in partition_homes(view, chain).items():
            if home is not None and not view.step.claimants(view.now, unit):
                found[home] += 1
    if batch is not None:
        taken = view.claimed_leaves(batch.training.stage)
        for leaf, home in leaf_homes(view, batch).items():
            if home is not None and leaf not in taken:
                found[home] += 1
    return found
