"""Where entries come from: a reasoning-gym task, or files.

An entry is a dict with `question` and `answer` (texts) and whatever else the source says.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from dflow_protocols.pipeline.entries.entry import Keys, make_entry
from dflow_protocols.pipeline.entries.parts import format_of, parts_of
from dflow_protocols.pipeline.entries.problem import EntryError
from dflow_protocols.pipeline.entries.rows import how_to_open, read_rows
from dflow_protocols.pipeline.entries.tables import INSTALL, NEEDS_PYARROW, is_readable
from dflowd.jobs.counter_random import number
from dflowd.jobs.failures import HostError, UserError, one_line

from .folder import DiskFolder, at

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


class Files:
    """Files of a format that dflow_protocols.pipeline.entries reads, whole and in memory."""

    endless = False

    def __init__(self, name: str, kind: str, config: Mapping[str, Any], base: Path) -> None:
        self._name = f"data.{name}: {at(base, config[kind])}"
        self._places: list[str] = []
        self._entries: list[Entry] = []
        if not is_readable(kind):
            what = (
                f"host {socket.gethostname()}: data.{name}: `{kind}` files are read by pyarrow, which is not installed"
            )
            raise HostError(f"{what}; {INSTALL}")
        try:
            for part in parts_of(kind, config[kind], DiskFolder(base)) or [config[kind]]:
                self._read(kind, at(base, part), Keys.of(config))
        except EntryError as error:
            raise UserError(f"data.{name}: {error.what}; {error.hint}") from error
        except OSError as error:
            raise UserError(f"{self._name}: {one_line(error)}") from error
        if not self._entries:
            raise UserError(f"{self._name} has no entries")
        self.size = len(self._entries)

    def entry(self, index: int) -> Entry:
        return self._entries[index]

    def place(self, entry: Entry) -> str:
        return next(place for place, known in zip(self._places, self._entries, strict=True) if known is entry)

    def score(self, completion: str, entry: Entry) -> float:
        raise UserError(f"{self._name} has no verifier of its own; name another reward function")

    def _read(self, kind: str, path: Path, keys: Keys) -> None:
        with path.open(**how_to_open(kind)) as file:
            for number, row in read_rows(kind, file, _pyarrow(kind)):
                place = f"{path.name}:{number}" if number else path.name
                try:
                    self._entries.append(make_entry(row, keys))
                except EntryError as error:
                    raise UserError(f"{place}: {error.what}; {error.hint}") from error
                self._places.append(place)


def _pyarrow(kind: str) -> Any:
    """pyarrow, where files of this format need it: loaded by nobody else."""
    if kind not in NEEDS_PYARROW:
        return None
    import pyarrow
    import pyarrow.ipc
    import pyarrow.parquet

    return pyarrow


def open_source(name: str, config: Mapping[str, Any], base: Path, seed: int) -> Source:
    """The source that a spec's `data` section names. Raises UserError, and HostError where this host cannot read it."""
    if kind := format_of(config):
        return Files(name, kind, config, base)
    return ReasoningGym(name, config["reasoning_gym"], config.get("config") or {}, seed)
