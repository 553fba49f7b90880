"""Splits: which part of a cut network goes on, where a pipeline asks that only one does (`on_split: pause_minority`).

A node cannot tell members that died from members that are cut off. So it counts: who is alive to it of those that the
step was dealt to. Part of that roster goes on, the rest waits until it meets the others again, or a person says that
they are gone for good. This makes branches rare; that there is one chain in the end rests on fork choice.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ..names import NodeId


def is_minority(roster: Sequence[NodeId], living: Collection[NodeId]) -> bool:
    """Whether the living are the smaller part of `roster` (in the step's order). Of two equal halves the one with the
    first member is not, so that they never both wait, and never both go on."""
    here = sum(1 for node in roster if node in living)
    return 2 * here < len(roster) or (2 * here == len(roster) and roster[0] not in living)
