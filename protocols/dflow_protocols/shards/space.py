"""Admission to a node's store: who may take space, and what is evicted for it. Owns the order, knows no bytes.

Space is for a product of a step of a run, and that is its priority: earlier runs and steps come first, and of a step
what ends it, in an order that is the same on every node, so that two nodes do not each make room for what the other has
put off. What can be made again gives way to an earlier priority, the latest first; nothing gives way to its own or to a
later one, or two requests could push each other out for ever.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from ..names import RunId
from ..work import Product

T = TypeVar("T")
STARVATION_S = 10.0  # so long the first one that found no room is waited for, before later ones take what is freed


@dataclass(frozen=True, slots=True, order=True)
class Priority:
    """What of a step of a run space is for; the smaller comes first. Runs are in the order of their ids."""

    run: RunId
    step: int
    product: Product = Product.OUTPUT

    @property
    def is_state(self) -> bool:
        """Whether it is for part of a version."""
        return self.product is Product.STATE


class AdmissionQueue:
    """Admission to one store, earliest priority first, with a bound on starvation: whose turn it is to take room."""

    def __init__(self) -> None:
        self._starving: Priority | None = None
        self._until = 0.0  # so long later ones wait for it; then it is as long no reason to wait again
        self._was_refused = False

    def enter(self, now: float, priority: Priority) -> bool:
        """Ask to look for room. False while an earlier one waits for what later ones have: then ask again."""
        is_let_in = self._starving is None or priority <= self._starving or now >= self._until
        self._was_refused |= not is_let_in
        return is_let_in

    def took(self, priority: Priority) -> None:
        """It found room: nobody waits for it any more, nor for a later one."""
        if self._starving is not None and priority <= self._starving:
            self._starving = None

    def refuse(self, now: float, priority: Priority, in_use: Iterable[Priority]) -> None:
        """It found no room. `in_use`: whom all that lies in the store is for.

        What later ones have may be such that it never gives way before they have ended, and they cannot while they
        wait: so who asks again and again holds them up for a while only, then lets them for as long.
        """
        self._was_refused = True
        is_first = self._starving is None or priority < self._starving or now >= self._until + STARVATION_S
        if is_first and any(other > priority for other in in_use):
            self._starving, self._until = priority, now + STARVATION_S

    def freed(self) -> bool:
        """Something was freed. Whether somebody who found no room before is to be told."""
        was_refused, self._was_refused = self._was_refused, False
        return was_refused


def latest_after(priority: Priority, found: Iterable[tuple[Priority, T]]) -> T | None:
    """Of things that can be made again, each with the first priority that it is for, the one that gives way to this."""
    later = [entry for entry in found if entry[0] > priority]
    return max(later, key=lambda entry: entry[0])[1] if later else None
