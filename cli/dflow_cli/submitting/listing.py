"""The files that a pipeline names, one by one, by what they hold."""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from pathlib import Path

from dflow_protocols.names import ShardId, ShardRef, hash_shard
from dflow_protocols.pipeline import Pipeline
from dflow_protocols.pipeline.files import files_of, is_code, named_files
from dflow_protocols.wire.listing import FileRef, listing_fault

from ..errors import CliError
from ..spec.diskfolder import DiskFolder

UNREAD = ShardId("")
PUSHED = "models.pushed.path"  # in place of a spec's key: files of a model that no spec has named yet


def files_of_pipeline(pipeline: Pipeline, base: Path) -> tuple[FileRef, ...]:
    """Each once, under the key that names it first; what is run under that of a function, whatever else names it.
    `base`: where relative paths start. Raises CliError."""
    folder = DiskFolder(base)
    keys: dict[str, str] = {}
    for named in sorted(named_files(pipeline), key=lambda named: not is_code(named.path)):
        for name in files_of(named, folder):
            keys.setdefault(name, named.path)
    return _refs(keys.items(), base)


def files_in(folder: Path) -> tuple[FileRef, ...]:
    """All files of a model's folder, at any depth, hidden ones aside, by their names in it. Raises CliError."""
    names = sorted(DiskFolder(folder).names("") or ())
    shown = [name for name in names if not any(part.startswith(".") for part in name.split("/"))]
    if not shown:
        raise CliError(
            "holds no files", where=str(folder), hint="name a model's folder, as `save_pretrained` writes it"
        )
    return _refs(((name, PUSHED) for name in shown), folder)


def _refs(named: Iterable[tuple[str, str]], base: Path) -> tuple[FileRef, ...]:
    sized = tuple(FileRef(key, name, ShardRef(UNREAD, _nbytes(base / name))) for name, key in named)
    if fault := listing_fault(sized):  # before they are read, which takes a while
        hint = "name files and folders that hold only what is needed"
        raise CliError(f"the files that are named are too many, or too large: {fault}", where=str(base), hint=hint)
    return tuple(FileRef(file.key, file.name, _ref(base / file.name)) for file in sized)


def _nbytes(path: Path) -> int:
    """Raises CliError."""
    try:
        return path.stat().st_size
    except OSError as error:
        raise _unreadable(path, error) from None


def _ref(path: Path) -> ShardRef:
    """Raises CliError."""
    try:
        with path.open("rb") as file:
            nbytes = path.stat().st_size
            if not nbytes:
                return ShardRef(hash_shard(b"")[0], 0)
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data, memoryview(data) as view:
                return ShardRef(hash_shard(view)[0], nbytes)
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: OSError) -> CliError:
    return CliError(f"cannot be read: {error.strerror}", where=str(path), hint="check its owner and mode")
