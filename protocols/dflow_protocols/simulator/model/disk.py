"""The disk of one machine: what outlives a crash, unless the disk itself is lost or torn; and one life's writes."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgpack

from ...events import Action, Persist, Persisted, Reply, Send, SendThrough
from ...names import VersionId
from ...versions.saved import Saved
from .schedule import Life

INCARNATION = "incarnation"
TRY_AGAIN_S = 5.0  # a daemon tries again so often what its disk did not take (dflowd/state/disk.py)


@dataclass
class Disk:
    """`values`: what lies there, by key. `saved`: whole checkpoints."""

    values: dict[str, bytes] = field(default_factory=dict)
    saved: dict[VersionId, Saved] = field(default_factory=dict)
    damaged: set[VersionId] = field(default_factory=set)  # of the saved: what a reader finds out
    is_full: bool = False  # it takes nothing for now
    unconfirmed: tuple[str, bytes] | None = None  # the write under way: its key, and what lay there before

    def begin_life(self) -> int:
        """The incarnation of the life that begins: higher than any that this disk knows of, and kept on it."""
        kept = self.values.get(INCARNATION)
        incarnation: int = msgpack.unpackb(kept) + 1 if kept else 1
        self.values[INCARNATION] = msgpack.packb(incarnation)
        return incarnation

    def write(self, key: str, value: bytes) -> None:
        """An empty value forgets the key. Until it is confirmed a crash may still undo it."""
        self.unconfirmed = key, self.values.get(key, b"")
        self._put(key, value)

    def confirm(self) -> None:
        """It is fsynced."""
        self.unconfirmed = None

    def undo_unconfirmed(self) -> None:
        """The write under way did not come to be: a file is the old one or the new one, nothing between."""
        if self.unconfirmed is not None:
            self._put(*self.unconfirmed)
        self.confirm()

    def fill(self) -> None:
        """Another program took what was free, or it was mounted anew to be read only."""
        self.is_full = True

    def make_room(self) -> None:
        self.is_full = False

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

    def copy(self, other: Disk) -> None:
        """All that lies on another disk lies here, too."""
        self.values, self.saved, self.damaged = dict(other.values), dict(other.saved), set(other.damaged)

    def tear_newest(self) -> None:
        """Power was cut while the newest checkpoint's bytes were on their way."""
        if self.saved:
            self.damaged.add(max(self.saved.values(), key=lambda saved: saved.header.step).header.id)

    def wipe(self) -> None:
        """A new disk is in its place."""
        self.values.clear()
        self.saved.clear()
        self.damaged.clear()
        self.confirm()

    def _put(self, key: str, value: bytes) -> None:
        if value:
            self.values[key] = value
        else:
            self.values.pop(key, None)


def without_disk(action: Action) -> Action | None:
    """What a driver makes of an action after a write that failed in its turn: nobody may rely on it."""
    match action:
        case Send() | SendThrough():
            return None
        case Reply(request, _, _, otherwise):
            return Reply(request, False, otherwise or {})
    return action


class Writes:
    """One life's writes. What the disk does not take is tried again, until a newer value of the key is written; that it
    lies there after all is told to the node."""

    def __init__(self, life: Life, disk: Disk) -> None:
        self._life = life
        self._disk = disk
        self._unkept: dict[str, Persist] = {}  # the newest write of each key, where it failed
        self._is_retrying = False

    def write(self, asked: Persist) -> bool:
        """Whether it lies on the disk."""
        was_unkept = self._unkept.pop(asked.key, None) is not None
        if self._disk.is_full:
            if not asked.or_never:
                self._unkept[asked.key] = asked
                self._try_later()
            return False
        self._disk.write(asked.key, asked.value)
        if was_unkept:
            self._life.tell(Persisted(asked.key))
        return True

    def _try_later(self) -> None:
        if not self._is_retrying:
            self._is_retrying = True
            self._life.after(TRY_AGAIN_S, self._try_again)

    def _try_again(self) -> None:
        self._is_retrying = False
        if self._disk.is_full:
            self._try_later()
            return
        unkept, self._unkept = self._unkept, {}
        for asked in unkept.values():
            self._disk.write(asked.key, asked.value)
            self._disk.confirm()
            self._life.tell(Persisted(asked.key))
