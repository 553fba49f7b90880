"""Which entry comes where, as a function of names: any position is found without walking through those before it.

A question is held out if the hash of its text says so, whatever the seed: what one spec trains on, no other spec with
the same share evaluates on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from dflow_protocols.pipeline.entries.entry import hashed_text, is_held_out
from dflowd.jobs.counter_random import digest, number
from dflowd.jobs.failures import UserError

from .prompts import Wording
from .sources import ENDLESS, Entry, Source, open_source

TRIES = 10_000  # draws in a row without a new question, after which a source is taken to have no more


class DataSet:
    """A source split into what is trained on and what is held out. `measure`: tokens of an entry's prompt, for data
    that drops what is too long."""

    def __init__(
        self,
        name: str,
        config: Mapping[str, Any],
        base: Path,
        seed: int,
        measure: Callable[[Entry], int] | None = None,
    ) -> None:
        self.name = name
        self.source: Source = open_source(name, config, base, seed)
        self._wording = Wording.of(config)
        held_out = config.get("held_out") or {}
        self._share = float(held_out.get("share", 0.0))
        self._by = str(held_out.get("by"))
        self._key = digest("data", name, seed)
        self._measure = measure
        self._fitting: list[int] | None = None
        self._pools: dict[bool, list[int]] = {}
        self._held_out: list[Entry] = []
        self._seen: set[str] = set()
        self._draws = 0
        self.progress: Callable[[], None] = lambda: None  # called for each entry that is looked at

    def training(self, position: int) -> Entry:
        """The entry at a position of the endless training order: epochs of a finite source, each shuffled anew."""
        if not self.source.endless:
            pool = self._pool(held_out=False)
            self.progress()
            return self.source.entry(pool[shuffled(self._key, position, len(pool))])
        for attempt in range(TRIES):
            self.progress()
            entry = self.source.entry(number("training", self._key, position, attempt) % ENDLESS)
            if not self._is_held_out(entry) and self._fits(entry):
                return entry
        raise UserError(f"data.{self.name}: found nothing that is not held out{self._or_too_long}")

    def demonstration(self, position: int, demos: int) -> Entry:
        """The entry at a position of the endless order over the first `demos` training entries."""
        return self.training(shuffled(self._key + b"demos", position, demos))

    def held_out(self, index: int) -> Entry | None:
        """The held-out entry number `index`, each question once; None where there are not so many.

        Raises UserError where there is none at all.
        """
        found = self._held_out_entry(index)
        if found is None and self._held_out_entry(0) is None:
            raise UserError(f"data.{self.name}: no question is held out; raise `held_out.share`")
        return found

    def wording_of(self, entry: Entry) -> Wording:
        """How its entries are put to a model."""
        return self._wording

    def place(self, entry: Entry) -> str:
        """Where the user finds an entry, such as `FILE:LINE`."""
        return self.source.place(entry)

    def score(self, completion: str, entry: Entry) -> float:
        """By the source's own verifier. Raises UserError where it has none."""
        return self.source.score(completion, entry)

    @property
    def has_conversations(self) -> bool:
        return self._wording.messages is not None

    @property
    def dropped(self) -> int | None:
        """Entries that are left out, as their prompts are too long; None where none may be, or nobody can count."""
        return None if self._measure is None or self.source.endless else self.source.size - len(self._kept())

    def _held_out_entry(self, index: int) -> Entry | None:
        if not self.source.endless:
            pool = self._pool(held_out=True)
            return self.source.entry(pool[index]) if index < len(pool) else None
        idle = 0
        while len(self._held_out) <= index and idle < TRIES:
            self.progress()
            entry = self.source.entry(number("held out", self._draws) % ENDLESS)
            self._draws += 1
            idle += 1
            question = self._text(entry)
            if self._is_held_out(entry) and question not in self._seen and self._fits(entry):
                self._seen.add(question)
                self._held_out.append(entry)
                idle = 0
        return self._held_out[index] if index < len(self._held_out) else None

    def _text(self, entry: Entry) -> str:
        return hashed_text(str(entry["question"]), self._by)

    def _is_held_out(self, entry: Entry) -> bool:
        return is_held_out(self._text(entry), self._share)

    @property
    def _or_too_long(self) -> str:
        most = self._wording.max_prompt_tokens
        return "" if self._measure is None else f", or longer than `max_prompt_tokens`, {most}"

    def _fits(self, entry: Entry) -> bool:
        if self._measure is None:
            return True
        try:
            return self._measure(entry) <= (self._wording.max_prompt_tokens or 0)
        except UserError as error:
            raise UserError(f"{self.place(entry)}: {error}") from error

    def _kept(self) -> list[int]:
        """Indices of a finite source's entries that are not too long."""
        if self._fitting is None:
            kept = []
            for index in range(self.source.size):
                self.progress()
                if self._fits(self.source.entry(index)):
                    kept.append(index)
            self._fitting = kept
        return self._fitting

    def _pool(self, *, held_out: bool) -> list[int]:
        """Indices of a finite source's entries on one side, those of one question but once if held out."""
        if held_out not in self._pools:
            seen: set[str] = set()
            pool = []
            for index in self._kept():
                self.progress()
                entry = self.source.entry(index)
                question = self._text(entry)
                if self._is_held_out(entry) == held_out and not (held_out and question in seen):
                    pool.append(index)
                    seen.add(question)
            if not pool and not held_out:
                raise UserError(f"data.{self.name}: all entries are held out{self._or_too_long}")
            self._pools[held_out] = pool
        return self._pools[held_out]


def shuffled(key: bytes, position: int, size: int) -> int:
    """The place in [0, size) of a position in an endless order of epochs, each a permutation of its own."""
    epoch, place = divmod(position, size)
    return int(_permutation(key, epoch, size)[place])


@lru_cache(maxsize=4)
def _permutation(key: bytes, epoch: int, size: int) -> Any:
    return np.random.Generator(np.random.Philox(number("epoch", key, epoch))).permutation(size)
