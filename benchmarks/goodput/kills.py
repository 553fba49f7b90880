"""Which node dies when, and how long until it is back."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kill:
    """`at_s`: seconds after the run's submission."""

    at_s: float
    node: int
    repair_s: float


def draw(seed: str, count: int, nodes: int, run_s: float, repair_s: float) -> tuple[Kill, ...]:
    """So many kills, one in each of as many equal parts of a run of `run_s`; nobody is killed twice in a row. Repairs
    take `repair_s` in the mean, from half to one and a half times that."""
    rng, kills, last = random.Random(seed), list[Kill](), -1
    for number in range(count):
        at_s = (number + rng.random()) * run_s / count
        last = rng.choice([node for node in range(nodes) if node != last])
        kills.append(Kill(at_s, last, repair_s * rng.uniform(0.5, 1.5)))
    return tuple(kills)


class Striker:
    """Kills and repairs as they come due. `kill` and `repair` do it, to a node by number; `done` counts kills.

    The last node that lives is spared until another one is back.
    """

    def __init__(
        self, kills: Sequence[Kill], nodes: int, kill: Callable[[int], None], repair: Callable[[int], None]
    ) -> None:
        self._due, self._nodes = sorted(kills, key=lambda kill: kill.at_s), nodes
        self._kill, self._repair = kill, repair
        self._back_s: dict[int, float] = {}  # of nodes that are dead
        self.done = 0

    def strike(self, now_s: float) -> None:
        """What is due `now_s` seconds after the submission."""
        for node, back_s in sorted(self._back_s.items()):
            if back_s <= now_s:
                del self._back_s[node]
                self._repair(node)
        while self._due and self._due[0].at_s <= now_s and len(self._back_s) < self._nodes - 1:
            kill = self._due.pop(0)
            if kill.node not in self._back_s:
                self._kill(kill.node)
                self.done += 1
            self._back_s[kill.node] = now_s + kill.repair_s
