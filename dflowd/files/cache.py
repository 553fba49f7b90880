"""Files that came by wire, on this host's disk by what they hold, and folders that stand for those of specs.

    blobs/ID        a file's bytes          drafts/ID     one that is still coming
    trees/RUN/...   a run's files by their names: links to blobs, and to the host's own files
    nowhere/        stands for a spec's folder in which nothing lies

Owns that disk and its bound: what active runs use stays, and of the rest the longest unused goes first. Not safe for
threads.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from dflow_protocols.names import RunId, ShardId, ShardRef
from dflow_protocols.pipeline.files import ELSEWHERE, laid

from ..process.durable import sync_folder
from ..shards.spill import SPARE_BYTES, size_text
from .contents import Content, Contents

ABANDONED_S = 120.0  # after which a file that came in part is not waited for
FRESH_S = 60.0  # for which a file stays that came or was asked for: others of its run or model are on the way


class NoRoomError(Exception):
    """The cache does not take a file: why, for people."""


class FileCache:
    """One daemon's. `contents`: of the files of this host, those of the cache among them."""

    def __init__(self, folder: Path, limit_bytes: int, contents: Contents) -> None:
        """Raises OSError where the folder cannot be made."""
        self._folder, self._limit_bytes, self._contents = folder, limit_bytes, contents
        self._blobs, self._drafts, self._trees = (folder / name for name in ("blobs", "drafts", "trees"))
        self._promised: dict[str, int] = {}  # bytes of the files that are coming, once they are whole
        for left in (self._drafts, self._trees):  # of an earlier life
            shutil.rmtree(left, ignore_errors=True)
        for place in (self._blobs, self._drafts, self._trees):
            place.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.nowhere = folder / "nowhere"
        (self.nowhere / ELSEWHERE).mkdir(parents=True, exist_ok=True)

    # Files ----------------------------------------------------------------------------------------------------------

    def find(self, ref: ShardRef) -> Content | None:
        """The file with these bytes, if it lies here and the disk kept it. It is read where it was not yet."""
        path = self._blobs / ref.id
        content = self._contents.of(path)
        if content is None:
            return None
        if content.ref != ref:
            path.unlink(missing_ok=True)
            return None
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))  # read just now; not written
        return content

    def drafted(self, ref: ShardRef) -> int:
        """How many of its bytes came so far."""
        draft = self._drafts / ref.id
        return draft.stat().st_size if draft.exists() else 0

    def abandon(self, ref: ShardRef) -> None:
        """Forget what came so far."""
        self._drop(self._drafts / ref.id)

    def append(self, ref: ShardRef, pieces: Iterable[bytes | memoryview], used: Collection[ShardId]) -> None:
        """The next bytes of a file that comes. `used`: files that have to stay. Raises NoRoomError."""
        draft = self._drafts / ref.id
        if not draft.exists():
            self._make_room(ref.nbytes, used)
            self._promised[ref.id] = ref.nbytes
        try:
            with draft.open("ab") as file:
                for piece in pieces:
                    file.write(piece)
        except OSError as error:
            self._drop(draft)
            raise NoRoomError(f"{self._folder}: {error.strerror}") from None

    def settle(self, ref: ShardRef) -> Content:
        """All of it came. Raises ValueError where it is something else, and OSError; then nothing of it stays."""
        draft, blob = self._drafts / ref.id, self._blobs / ref.id
        try:
            content = self._contents.of(draft)
            if content is None or content.ref != ref:
                raise ValueError(f"what came is not file {ref.id[:8]} of {ref.nbytes} bytes")
            with draft.open("rb") as file:
                os.fsync(file.fileno())
            draft.rename(blob)
            sync_folder(self._blobs)
        finally:
            self._drop(draft)
        return self._contents.moved(content, blob)

    def _make_room(self, nbytes: int, used: Collection[ShardId]) -> None:
        """Raises NoRoomError."""
        if nbytes > self._limit_bytes:
            raise NoRoomError(f"{size_text(nbytes)} is more than files.cache_limit, {size_text(self._limit_bytes)}")
        promised, written = self._coming()
        blobs = sorted((_used_s(file), file.name, file.stat().st_size) for file in self._blobs.iterdir())
        whole = promised + sum(size for _, _, size in blobs)
        free = min(self._limit_bytes - whole, self._free_disk() - (promised - written))
        for used_s, name, size in blobs:
            if free >= nbytes:
                return
            if name not in used and time.time() - used_s > FRESH_S:
                (self._blobs / name).unlink()
                self._contents.forget(ShardId(name))
                free += size
        if free < nbytes:
            limit = size_text(self._limit_bytes)
            beside = "what active runs use or what came within the last minute"
            raise NoRoomError(f"{size_text(nbytes)} do not fit beside {beside} (files.cache_limit is {limit})")

    def _coming(self) -> tuple[int, int]:
        """Bytes of the files that are coming, once they are whole and now. Those that nobody sends are dropped."""
        promised = written = 0
        for draft in list(self._drafts.iterdir()):
            facts = draft.stat()
            if time.time() - facts.st_mtime >= ABANDONED_S:
                self._drop(draft)
                continue
            promised, written = promised + self._promised[draft.name], written + facts.st_size
        return promised, written

    def _drop(self, draft: Path) -> None:
        draft.unlink(missing_ok=True)
        self._promised.pop(draft.name, None)

    def _free_disk(self) -> int:
        place = os.statvfs(self._folder)
        return place.f_bavail * place.f_frsize - SPARE_BYTES

    # Folders --------------------------------------------------------------------------------------------------------

    def lay(self, run: RunId, files: Mapping[str, Path]) -> Path:
        """A folder in which a run's files lie by their names. Raises OSError, and ValueError for names that cannot lie
        beside each other."""
        tree = self._trees / run
        shutil.rmtree(tree, ignore_errors=True)
        (tree / ELSEWHERE).mkdir(parents=True)
        for name, path in files.items():
            place = tree / laid(name)
            if place.is_dir() or not place.is_relative_to(tree):
                raise ValueError(f"`{name}` is no name of a file")
            place.parent.mkdir(parents=True, exist_ok=True)
            if path.is_relative_to(self._blobs):
                os.link(path, place)  # stays, whatever the cache gives up
            else:
                place.symlink_to(path)
        return tree

    def holds(self, path: Path) -> bool:
        """Whether a path leads into this cache, or is none."""
        try:
            return path.resolve().is_relative_to(self._folder.resolve())
        except (OSError, RuntimeError, ValueError):
            return True

    def tidy(self, active: Collection[RunId]) -> None:
        """Remove the folders of runs that are over."""
        for tree in self._trees.iterdir():
            if tree.name not in active:
                shutil.rmtree(tree, ignore_errors=True)


def _used_s(blob: Path) -> float:
    """When a file came or was last asked for, in seconds since 1970."""
    facts = blob.stat()
    return max(facts.st_atime, facts.st_mtime)
