"""Checkpoint folders: whole or absent, whatever dies while one is written; the oldest ones go.

A folder `step-000050` holds what the engine writes (a model as its makers' tools open it) and `dflow.json`, which
says whose version it is.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from dflow_protocols.work import SaveWork
from dflowd.engines.contract import Job

FACTS = "dflow.json"


def write(job: Job, work: SaveWork, fill: Callable[[Path], None]) -> Path:
    """Make the version's folder by `fill(folder)`; returns its path once all of it is on the disk.

    A folder that is there already and holds this version stays as it is. At most `checkpoint.keep` folders are left.
    Raises OSError.
    """
    target = job.folder / f"step-{work.step:06d}"
    if _version(target) != work.version:
        job.folder.mkdir(parents=True, exist_ok=True)
        draft = job.folder / f".{target.name}.{os.getpid()}"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        fill(draft)
        facts = {
            "name": job.pipeline.name,
            "spec": str(job.pipeline.id),
            "step": work.step,
            "version": work.version,
            "state": {name: ref.id for name, ref in work.state},
        }
        (draft / FACTS).write_text(json.dumps(facts, indent=2) + "\n")
        for file in sorted(draft.rglob("*")):
            _sync(file)
        _sync(draft)
        _replace(draft, target)
    _retire(job, target)
    return target


def _version(folder: Path) -> str:
    try:
        return str(json.loads((folder / FACTS).read_text()).get("version", ""))
    except (OSError, ValueError):
        return ""


def _replace(draft: Path, target: Path) -> None:
    if target.exists():  # another version of this step: one that lost a fork choice
        old = target.with_name(f".{target.name}.old.{os.getpid()}")
        target.rename(old)
        shutil.rmtree(old, ignore_errors=True)
    draft.rename(target)
    _sync(target.parent)


def _retire(job: Job, newest: Path) -> None:
    keep = int((job.pipeline.checkpoint or {}).get("keep") or 0)
    if keep:
        folders = sorted(folder for folder in job.folder.glob("step-*") if (folder / FACTS).exists())
        for folder in folders[:-keep]:
            if folder != newest:
                shutil.rmtree(folder, ignore_errors=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
