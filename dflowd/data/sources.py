"""Where entries come from: a reasoning-gym task, or a JSONL file.

An entry is a dict with `question` and `answer` (texts) and whatever else the source says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from dflowd.engines.contract import UserError, one_line
from dflowd.engines.counter_random import number

Entry = dict[str, Any]

ENDLESS = 1 << 31  # indices of a task that makes entries on demand


class Source(Protocol):
    """Entries by index. `endless`: indices up to ENDLESS are drawn from; else there are `size` entries."""

    size: int
    endless: bool

    def entry(self, index: int) -> Entry: ...

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

    def score(self, completion: str, entry: Entry) -> float:
        return float(self._dataset.score_answer(completion, entry))


class Jsonl:
    """One JSON object a line; `question` and `answer` name the keys that hold the texts."""

    endless = False

    def __init__(self, name: str, path: Path, question: str, answer: str) -> None:
        self._place = f"{path.name}"
        try:
            self._entries = [self._read(line, n, question, answer) for n, line in _lines(path)]
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"data.{name}: {error}") from error
        if not self._entries:
            raise UserError(f"data.{name}: {path} has no entries")
        self.size = len(self._entries)

    def entry(self, index: int) -> Entry:
        return self._entries[index]

    def score(self, completion: str, entry: Entry) -> float:
        raise UserError(f"{self._place} has no verifier of its own; name another reward function")

    def _read(self, line: str, number: int, question: str, answer: str) -> Entry:
        try:
            found = json.loads(line)
        except ValueError as error:
            raise UserError(f"{self._place}:{number}: not JSON: {error}") from error
        missing = [key for key in (question, answer) if not isinstance(found, dict) or key not in found]
        if missing:
            raise UserError(f"{self._place}:{number}: no key `{missing[0]}`")
        return {**found, "question": str(found[question]), "answer": str(found[answer])}


def _lines(path: Path) -> list[tuple[int, str]]:
    text = path.read_text(encoding="utf-8")
    return [(n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip()]


def open_source(name: str, config: Mapping[str, Any], base: Path, seed: int) -> Source:
    """The source that a spec's `data` section names. Raises UserError."""
    if "reasoning_gym" in config:
        return ReasoningGym(name, config["reasoning_gym"], config.get("config") or {}, seed)
    return Jsonl(name, base / config["jsonl"], config["question"], config["answer"])
