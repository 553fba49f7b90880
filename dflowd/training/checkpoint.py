"""Checkpoint folders: whole or absent, whatever dies while one is written, and read back to the same shards.

A folder `step-000050` holds a model as its makers' tools open it, the optimizer state, the pipeline, and `dflow.json`,
which says whose version it is and where each entry of the state lies. Bytes lie on the disk once where the data part of
the model's file is the parameters' shards; else the shards lie beside it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from dflow_protocols.names import CHUNK_BYTES, ShardRef, chunk_hash, shard_id
from dflow_protocols.ranges import shards_of, total_bytes
from dflow_protocols.versions.saved import FILE, Place, Saved, read_saved, write_saved
from dflow_protocols.work import Done, LoadWork, Made, SaveWork
from dflowd.jobs.failures import Damaged
from dflowd.jobs.job import Job

PIPELINE = "pipeline.json"
SAFETENSORS = ("model.safetensors", "adapter_model.safetensors")
READ_BYTES = 16 << 20  # at a time, so that progress shows
WRITE_BYTES = 64 << 20
SYNC_FILE_RANGE_WHOLE = 7  # wait for what is under way, write the rest, wait for that

_LIBC = ctypes.CDLL(None, use_errno=True)


def write(job: Job, work: SaveWork, fill: Callable[[Path], Mapping[str, Place]]) -> Path:
    """Make the version's folder; returns its path once all of it is on the disk.

    `fill(folder)` writes the model, and says where roles of the state lie whole in what it wrote; the others are
    written beside it as they are, a file a shard. A folder of the same step that was there before is replaced. Raises
    OSError.
    """
    target = job.folder / f"step-{work.step:06d}"
    job.folder.mkdir(parents=True, exist_ok=True)
    draft = job.folder / f".{target.name}.{os.getpid()}"
    for left in (draft, *_left_behind(job.folder)):
        shutil.rmtree(left, ignore_errors=True)
    draft.mkdir()
    try:
        _write_into(draft, job, work, fill)
        _replace(draft, target)
    except BaseException:  # given up, or the disk is full: half of a checkpoint helps nobody
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return target


def _write_into(draft: Path, job: Job, work: SaveWork, fill: Callable[[Path], Mapping[str, Place]]) -> None:
    filled = dict(fill(draft))
    places: list[Place] = []
    for role in dict.fromkeys(name for name, _ in work.state):
        refs = shards_of(work.state, role)
        if role in filled:
            places += _one_behind_the_other(filled[role], refs)
            continue
        for part, ref in enumerate(refs):
            places.append(Place(_file_of(role, part, len(refs)), 0))
            _write_file(draft / places[-1].file, job.shards.read(ref), job.progress)
    (draft / PIPELINE).write_bytes(job.pipeline.canonical())
    pipeline = job.pipeline
    saved = Saved(work.run, pipeline.id, pipeline.plan_version, pipeline.name, work.header, tuple(places))
    (draft / FILE).write_text(write_saved(saved))
    for file in sorted(draft.rglob("*")):
        _sync(file, job.progress)
    _sync(draft, job.progress)


def _one_behind_the_other(first: Place, refs: Sequence[ShardRef]) -> Iterator[Place]:
    at = first.offset
    for ref in refs:
        yield Place(first.file, at)
        at += ref.nbytes


def _file_of(role: str, part: int, count: int) -> str:
    """Such as `optimizer-learn.f32`, or `optimizer-learn-00002-of-00005.f32` where the role has several shards."""
    suffix = f"-{part + 1:05d}-of-{count:05d}" if count > 1 else ""
    form = "blake3" if role.startswith("base:") else "f32"
    return f"{role.replace(':', '-')}{suffix}.{form}"


def _left_behind(folder: Path) -> list[Path]:
    """What engines that were killed had begun to write: gigabytes that would pile up where saving takes too long."""
    begun = [path for path in folder.glob(".step-*") if path.suffix[1:].isdigit()]
    return [path for path in begun if not Path("/proc", path.suffix[1:]).exists()]


def read(job: Job, work: LoadWork) -> Done:
    """The entries of a saved version's state, as the shards that they were. Raises Damaged, naming the file."""
    folder = job.folder / f"step-{work.header.step:06d}"
    try:
        saved = read_saved((folder / FILE).read_text())
    except (OSError, ValueError) as error:
        raise Damaged(f"{folder.name}: {error}") from error
    if (saved.run, saved.header) != (work.run, work.header):
        raise Damaged(f"{folder.name}/{FILE} is of version {saved.header.id[:12]} of run {saved.run[:8]}")
    rooms = job.shards.allocate([ref.nbytes for _, ref in work.header.state])
    for place, room in zip(saved.places, rooms, strict=True):
        _read_into(room, folder, place, job.progress)
    made = job.shards.seal(rooms)
    for place, (_, ref), found in zip(saved.places, work.header.state, made, strict=True):
        if found != ref:
            raise Damaged(f"{folder.name}/{place.file}: its bytes are not those that were saved")
    entries = tuple((name, found) for (name, _), found in zip(work.header.state, made, strict=True))
    return Done((Made("load", entries),))


def parameters_in(folder: Path, refs: Sequence[ShardRef], progress: Callable[[], None]) -> Place | None:
    """Where a model's parameters lie in its safetensors file, if the file's data are these shards one behind the other.

    They are wherever the model is saved tensor by tensor as it is in memory, in one file. Some architectures are not:
    transformers fuses the experts of a mixture, and writes each for itself. So the bytes are hashed, not guessed at.
    """
    path = next((folder / name for name in SAFETENSORS if (folder / name).is_file()), None)
    if path is None:
        return None  # in several files
    with path.open("rb") as source:
        start = 8 + int.from_bytes(source.read(8), "little")
        if path.stat().st_size - start != total_bytes(refs):
            return None
        source.seek(start)
        for ref in refs:
            hashes = []
            for at in range(0, ref.nbytes, CHUNK_BYTES):
                hashes.append(chunk_hash(source.read(min(CHUNK_BYTES, ref.nbytes - at))))
                progress()
            if shard_id(ref.nbytes, hashes) != ref.id:
                return None
    return Place(path.name, start)


def _read_into(room: memoryview, folder: Path, place: Place, progress: Callable[[], None]) -> None:
    try:
        with (folder / place.file).open("rb", buffering=0) as source:
            source.seek(place.offset)
            at = 0
            while at < len(room):
                count = source.readinto(room[at : at + READ_BYTES])
                if not count:
                    raise Damaged(f"{folder.name}/{place.file}: ends {len(room) - at} bytes too early")
                at += count
                progress()
    except OSError as error:
        raise Damaged(f"{folder.name}/{place.file}: {error.strerror}") from error


def _replace(draft: Path, target: Path) -> None:
    if target.exists():  # another version of this step, that lost a fork choice; or this one, damaged
        old = target.with_name(f".{target.name}.old.{os.getpid()}")
        target.rename(old)
        draft.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    else:
        draft.rename(target)
    _sync(target.parent, lambda: None)


def _write_file(path: Path, data: memoryview, progress: Callable[[], None]) -> None:
    with path.open("wb") as file:
        for at in range(0, len(data), WRITE_BYTES):
            file.write(data[at : at + WRITE_BYTES])
            progress()


def _sync(path: Path, progress: Callable[[], None]) -> None:
    """All of a file, or a folder's names, is on the disk. Raises OSError."""
    handle = os.open(path, os.O_RDONLY)
    try:
        found = os.fstat(handle)
        for at in range(0, found.st_size if stat.S_ISREG(found.st_mode) else 0, WRITE_BYTES):
            _write_back(handle, at)
            progress()
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_back(handle: int, at: int) -> None:
    """Bring WRITE_BYTES of a file from there on to the disk, so that the fsync of gigabytes does not take minutes in
    which nothing is told. Where a file system cannot, fsync does all. Raises OSError."""
    if _LIBC.sync_file_range(handle, ctypes.c_int64(at), ctypes.c_int64(WRITE_BYTES), SYNC_FILE_RANGE_WHOLE):
        error = ctypes.get_errno()
        if error not in (errno.ENOSYS, errno.EINVAL, errno.ESPIPE):
            raise OSError(error, os.strerror(error))
