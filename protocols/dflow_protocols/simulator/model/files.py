"""The files of runs on one machine: what its host says of them when it is asked to see to them, and when."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias

from ...events import FilesFound, FindFiles
from ...names import RunId, ShardId, ShardRef
from ...wire.listing import FileRef
from .schedule import Life

FILES: Final = (FileRef("stages[1].config.function", "score.py", ShardRef(ShardId("f" * 64), 100)),)
"""What a run of these worlds opens. Its bytes are of no account: bringing them is not the protocol's."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a host says of a run's files, so long after it was asked."""

    after_s: float
    lacking: str = ""
    refused: tuple[str, ...] = ()


Script: TypeAlias = tuple[Answer, ...]
HERE: Final[Script] = (Answer(0.0),)  # of a host that has them and runs any code


class Search:
    """One life's."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self._told: dict[RunId, FilesFound] = {}  # as the node took it last

    def find(self, action: FindFiles, script: Script) -> None:
        """Tell the node how the files stand, again and again as scripted."""
        for answer in script:
            found = FilesFound(action.run, answer.lacking, answer.refused)
            self._life.after(answer.after_s, partial(self._life.tell, found))

    def heard(self, found: FilesFound) -> None:
        """The node takes what it was told."""
        self._told[found.run] = found

    def of(self, run: RunId) -> FilesFound:
        """What the node knows of the run's files."""
        return self._told.get(run, FilesFound(run, "nothing was told of them"))
