"""One measurement: which system does what work where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from benchmarks.scaling.hosts import Host
from benchmarks.scaling.profile import Profile, load


@dataclass(frozen=True, slots=True)
class Setting:
    """The work of `work` nodes, of that profile and that much smaller, by `nodes` nodes. `host`: what each node has to
    itself; None: all share this machine, at its own speed."""

    system: str
    profile: str
    nodes: int
    work: int
    steps: int
    smaller: float = 1.0
    host: Host | None = None

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Self:
        """As dataclasses.asdict() told it."""
        host = told["host"]
        return cls(**{**told, "host": Host(**host) if host else None})

    @property
    def slower(self) -> float:
        return self.host.slower if self.host else 1.0

    def sized(self) -> Profile:
        """Its profile, on devices as slow as its host."""
        return load(self.profile, self.smaller).on_slower(self.slower)
