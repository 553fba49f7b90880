"""What is wrong with one machine's engines and disk, and so how a work that is over there ends."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field

from ...events import Start
from ...names import VersionId
from ...work import ChainWork, Failed, FailureKind, LoadWork, SaveWork

SLOW = 5.0


@dataclass
class Health:
    """Calm heals only the works that were to break; `handicaps` (faults/hosts.py) outlast restarts, too."""

    handicaps: set[str] = field(default_factory=set)
    speed: float = 1.0  # of its engines
    numerics: int = 0  # their class: those of one give the same bytes
    break_works: int = 0
    break_kind: FailureKind = "engine"
    hang_s: float | None = None  # the next work makes no progress, and its supervisor gives it up after so long

    @property
    def is_broken(self) -> bool:
        return "broken" in self.handicaps

    @property
    def is_mute(self) -> bool:
        return "mute" in self.handicaps

    def impair(self, handicap: str) -> None:
        self.handicaps.add(handicap)
        if handicap == "slow":
            self.speed = 1.0 / SLOW

    def compute_as(self, numerics: int) -> None:
        """Its engines are of this class."""
        self.numerics = numerics

    def break_next(self, works: int, kind: FailureKind) -> None:
        """So many of the next works break: `engine`, or `user`, which only a chain can."""
        self.break_works, self.break_kind = works, kind

    def hang_next(self, hang_s: float) -> None:
        """The next work never ends; it is given up after a while."""
        self.hang_s = hang_s

    def hang(self) -> float | None:
        """How long a work that begins will hang, if it will."""
        hang_s, self.hang_s = self.hang_s, None
        return hang_s

    def mend(self) -> None:
        self.break_works, self.hang_s = 0, None

    def fail(self, start: Start, damaged: Container[VersionId]) -> Failed | None:
        """How this machine fails a work that is over, if it does; one that was to break has broken then."""
        if self.is_broken:
            return Failed("engine", "this machine can compute nothing", start.task.stage)
        if "read-only" in self.handicaps and isinstance(start.work, SaveWork):
            return Failed("full", "this disk takes nothing")
        if self.break_works and (self.break_kind != "user" or isinstance(start.work, ChainWork)):
            self.break_works -= 1
            return Failed(self.break_kind, "broken on purpose", start.task.stage)
        if isinstance(start.work, LoadWork) and start.work.header.id in damaged:
            return Failed("damaged", "damaged on purpose", start.task.stage)
        return None
