"""Several data sets as one, each with its share of the positions: a function of names, like the order of each.

Positions come in blocks of PARTS, of which each data set has as many as its weight says (by largest remainders), in an
order drawn anew for each block. So the count of a data set's positions before any other one is known without walking
there, and each data set is walked by its own count: nothing comes twice before all of it was seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from dflow_protocols.pipeline.entries.mixing import PARTS, parts_of_block
from dflowd.jobs.counter_random import digest, number
from dflowd.jobs.failures import UserError

from .contract import Data
from .order import shuffled
from .prompts import Wording
from .sources import Entry


class Drawn(dict[str, Any]):
    """An entry that knows the data set of a mixture that it came from."""

    def __init__(self, entry: Entry, origin: Data) -> None:
        super().__init__(entry)
        self.entry, self.origin = entry, origin


class Mixture:
    """A Data (contract.py) of others. `weights`: by name; `held_out`: how many each of them holds out."""

    def __init__(
        self, name: str, weights: Mapping[str, float], sets: Mapping[str, Data], held_out: Mapping[str, int], seed: int
    ) -> None:
        self.name = name
        self._names = sorted(weights)
        self._sets = [sets[each] for each in self._names]
        self._counts = tuple(parts_of_block([weights[each] for each in self._names]))
        self._held_out = _interleaved([held_out[each] for each in self._names])
        self._key = digest("mix", name, seed)

    def training(self, position: int) -> Entry:
        block, at = divmod(position, PARTS)
        sets, ranks = _block(self._key, block, self._counts)
        chosen = int(sets[at])
        origin = self._sets[chosen]
        return Drawn(origin.training(block * self._counts[chosen] + int(ranks[at])), origin)

    def demonstration(self, position: int, demos: int) -> Entry:
        return self.training(shuffled(self._key + b"demos", position, demos))

    def held_out(self, index: int) -> Entry | None:
        if not self._held_out:
            raise UserError(f"data.{self.name}: none of its data sets holds anything out")
        if index >= len(self._held_out):
            return None
        chosen, own = self._held_out[index]
        found = self._sets[chosen].held_out(own)
        return None if found is None else Drawn(found, self._sets[chosen])

    def wording_of(self, entry: Entry) -> Wording:
        drawn = _drawn(entry)
        return drawn.origin.wording_of(drawn.entry)

    def place(self, entry: Entry) -> str:
        drawn = _drawn(entry)
        return drawn.origin.place(drawn.entry)

    def score(self, completion: str, entry: Entry) -> float:
        drawn = _drawn(entry)
        return drawn.origin.score(completion, drawn.entry)

    @property
    def has_conversations(self) -> bool:
        return any(each.has_conversations for each in self._sets)

    @property
    def dropped(self) -> int | None:
        known = [each.dropped for each in self._sets if each.dropped is not None]
        return sum(known) if known else None


def _drawn(entry: Entry) -> Drawn:
    assert isinstance(entry, Drawn), "an entry of a mixture came from it"
    return entry


def _interleaved(counts: Sequence[int]) -> list[tuple[int, int]]:
    """(data set, number in it) of all that is held out, so that any first part of them has each data set's share."""
    spread = [((each + 0.5) / count, chosen, each) for chosen, count in enumerate(counts) for each in range(count)]
    return [(chosen, each) for _, chosen, each in sorted(spread)]


@lru_cache(maxsize=4)
def _block(key: bytes, block: int, counts: tuple[int, ...]) -> tuple[Any, Any]:
    """Of each position of a block its data set, and how many positions of that are before it in the block; both
    [PARTS]."""
    order = np.random.Generator(np.random.Philox(number("mix", key, block))).permutation(PARTS)
    sets = np.repeat(np.arange(len(counts)), counts)[order]
    ranks = np.zeros(PARTS, np.int64)
    for chosen, count in enumerate(counts):
        ranks[sets == chosen] = np.arange(count)
    return sets, ranks
