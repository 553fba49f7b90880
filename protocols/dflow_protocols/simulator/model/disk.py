"""The disk of one machine: what outlives a crash, unless the disk itself is lost or torn."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...names import VersionId
from ...versions.saved import Saved


@dataclass
class Disk:
    """`values`: what was fsynced, by key. `saved`: whole checkpoints."""

    values: dict[str, bytes] = field(default_factory=dict)
    saved: dict[VersionId, Saved] = field(default_factory=dict)
    damaged: set[VersionId] = field(default_factory=set)  # of the saved: what a reader finds out

    def write(self, key: str, value: bytes) -> None:
        """An empty value forgets the key."""
        self.values[key] = value
        if not value:
            del self.values[key]

    def save(self, saved: Saved) -> None:
        """The folder is whole; one of the same step that was there before is gone."""
        header = saved.header
        same = [v for v, other in self.saved.items() if (other.run, other.header.step) == (saved.run, header.step)]
        for version in same:
            del self.saved[version]
        self.damaged.discard(header.id)
        self.saved[header.id] = saved

    def discard(self, version: VersionId) -> None:
        self.saved.pop(version, None)

    def tear_newest(self) -> None:
        """Power was cut while the newest checkpoint's bytes were on their way."""
        if self.saved:
            self.damaged.add(max(self.saved.values(), key=lambda saved: saved.header.step).header.id)

    def wipe(self) -> None:
        """A new disk is in its place."""
        self.values.clear()
        self.saved.clear()
        self.damaged.clear()
