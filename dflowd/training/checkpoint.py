"""Checkpoint folders: whole or absent, whatever dies while one is written, and read back to the same shards.

A folder `step-000050` holds a model as its makers' tools open it, the optimizer state, the pipeline, and `dflow.json`,
which says whose version it is and where each entry of the state lies. Bytes lie on the disk once: the data part of a
safetensors file whose tensors are sorted by name is the parameters' shard.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from dflow_protocols.saved import FILE, Place, Saved, read_saved, write_saved
from dflow_protocols.work import Done, LoadWork, Made, SaveWork
from dflowd.engines.contract import Damaged, Job

PIPELINE = "pipeline.json"
READ_BYTES = 16 << 20  # at a time, so that progress shows


def write(job: Job, work: SaveWork, fill: Callable[[Path], Mapping[str, Place]]) -> Path:
    """Make the version's folder; returns its path once all of it is on the disk.

    `fill(folder)` writes the model, and says where entries of the state lie in what it wrote; the others are written
    beside it as they are. A folder of the same step that was there before is replaced. Raises OSError.
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
    places = dict(fill(draft))
    for name, ref in work.state:
        if name not in places:
            places[name] = Place(f"{name.replace(':', '-')}.f32", 0)
            (draft / places[name].file).write_bytes(job.shards.read(ref))
            job.progress()
    (draft / PIPELINE).write_bytes(job.pipeline.canonical())
    pipeline = job.pipeline
    saved = Saved(work.run, pipeline.id, pipeline.plan_version, pipeline.name, work.header, places)
    (draft / FILE).write_text(write_saved(saved))
    for file in sorted(draft.rglob("*")):
        _sync(file)
        job.progress()
    _sync(draft)


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
    for (name, _), room in zip(work.header.state, rooms, strict=True):
        _read_into(room, folder, saved.places[name], job.progress)
    made = job.shards.seal(rooms)
    for (name, ref), found in zip(work.header.state, made, strict=True):
        if found != ref:
            raise Damaged(f"{folder.name}/{saved.places[name].file}: its bytes are not those that were saved")
    entries = tuple((name, found) for (name, _), found in zip(work.header.state, made, strict=True))
    return Done((Made("load", entries),))


def parameters_in(folder: Path, file: str, nbytes: int) -> Place | None:
    """Where a model's parameters lie in its safetensors file, if they lie there as in their shard: float32, sorted by
    name, nothing between. Parameters that are wrong all the same show when the checkpoint is read."""
    path = folder / file
    if not path.is_file():
        return None  # in several files
    with path.open("rb") as source:
        length = int.from_bytes(source.read(8), "little")
        tensors = json.loads(source.read(length))
    tensors.pop("__metadata__", None)
    at = 0
    for name in sorted(tensors):
        first, end = tensors[name]["data_offsets"]
        if tensors[name]["dtype"] != "F32" or first != at:
            return None
        at = end
    return Place(file, 8 + length) if at == nbytes else None


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
    _sync(target.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
