"""Faults that wait for an action of a node."""

from __future__ import annotations

from dataclasses import dataclass

from ...events import Action
from . import Fault
from .moments import Trigger, When


@dataclass(frozen=True, slots=True)
class Trap:
    """The fault strikes so long after the action; 0: between it and the next one. `told`: how the story calls it."""

    trigger: Trigger
    fault: Fault
    after_s: float = 0.0
    told: When | None = None


class Traps:
    """Of one world. Each springs once."""

    def __init__(self) -> None:
        self._set: list[Trap] = []

    @property
    def are_set(self) -> bool:
        """Whether any fault waits for an action."""
        return bool(self._set)

    def set(self, trap: Trap) -> None:
        self._set.append(trap)

    def sprung(self, node: int, performed: int, action: Action) -> list[Trap]:
        """Those that this action sets off: they are set no more."""
        found = [trap for trap in self._set if trap.trigger(node, performed, action)]
        for trap in found:
            self._set.remove(trap)
        return found

    def clear(self) -> None:
        self._set.clear()
