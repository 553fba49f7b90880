"""Where entries come from: a reasoning-gym task, or a JSONL file.

An entry is a dict with `question` and `answer` (texts) and whatever else the source says.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from dflow_protocols.pipeline.grammar.entries import ENCODING, ERRORS, EntryError, numbered_lines, read_entry
from dflowd.jobs.counter_random import number
from dflowd.jobs.failures import UserError, one_line

Entry = dict[str, Any]

ENDLESS = 1 << 31  # indices of a task that makes entries on demand


class Source(Protocol):
    """Entries by index. `endless`: indices up to ENDLESS are drawn from; else there are `size` entries."""

    size: int
    endless: bool

    def entry(self, index: int) -> Entry: ...

    def place(self, entry: Entry) -> str:
        """Where the user finds an entry that came from here, such as `FILE:LINE`."""

    def score(self, completion: str, entry: Entry) -> float:
        """The source's own verifier. Raises UserError where it has none."""


class ReasoningGym:
    """A procedural task: endless unless its config sets `size`; seeded by its config's `seed`, else by the spec's."""

    def __init__(self, name: str, task: str, config: Mapping[str, Any], seed: int) -> None:
        import reasoning_gym

        self.endless = "size" not in config
        self.size = int(config.get("size", ENDLESS))
        try:
            settings = {"seed": number("reasoning_gym", seed) % ENDLESS, **config}
            self._dataset = reasoning_gym.create_dataset(task, **settings)
        except Exception as error:
            raise UserError(f"data.{name}: reasoning-gym's {task}: {one_line(error)}") from error
        self._place = f"data.{name}: reasoning-gym's {task}"

    def entry(self, index: int) -> Entry:
        try:
            made = self._dataset[index]
        except Exception as error:
            raise UserError(f"{self._place}: entry {index}: {one_line(error)}") from error
        return {**made, "question": str(made["question"]), "answer": str(made["answer"])}

    def place(self, entry: Entry) -> str:
        return f"{self._place}: {entry['question'][:60]!r}"

    def score(self, completion: str, entry: Entry) -> float:
        return float(self._dataset.score_answer(completion, entry))


class Jsonl:
    """One JSON object a line; `prompt` and `answer` name the keys that hold the texts."""

    endless = False

    def __init__(self, name: str, path: Path, prompt: str, answer: str) -> None:
        self._name = path.name
        try:
            with path.open(encoding=ENCODING, errors=ERRORS) as file:
                numbered = [(n, self._read(line, n, prompt, answer)) for n, line in numbered_lines(file)]
        except OSError as error:
            raise UserError(f"data.{name}: {path}: {one_line(error)}") from error
        self._numbers = [number for number, _ in numbered]
        self._entries = [entry for _, entry in numbered]
        if not self._entries:
            raise UserError(f"data.{name}: {path} has no entries")
        self.size = len(self._entries)

    def entry(self, index: int) -> Entry:
        return self._entries[index]

    def place(self, entry: Entry) -> str:
        index = next(index for index, known in enumerate(self._entries) if known is entry)
        return f"{self._name}:{self._numbers[index]}"

    def score(self, completion: str, entry: Entry) -> float:
        raise UserError(f"{self._name} has no verifier of its own; name another reward function")

    def _read(self, line: str, number: int, prompt: str, answer: str) -> Entry:
        try:
            return read_entry(line, prompt, answer)
        except EntryError as error:
            raise UserError(f"{self._name}:{number}: {error.what}; {error.hint}") from error


def open_source(name: str, config: Mapping[str, Any], base: Path, seed: int) -> Source:
    """The source that a spec's `data` section names. Raises UserError."""
    if "reasoning_gym" in config:
        return ReasoningGym(name, config["reasoning_gym"], config.get("config") or {}, seed)
    return Jsonl(name, base / config["jsonl"], config["prompt"], config["answer"])
