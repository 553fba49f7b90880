"""The checkpoints on this node's disk: found at its start, and removed when newer ones are whole on enough disks.

Engine children write and read them (training/checkpoint.py); here only names and `dflow.json` are looked at.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from dflow_protocols.events import Report
from dflow_protocols.names import RunId, VersionId
from dflow_protocols.versions.saved import FILE, Saved, read_saved


def folder_of(state: Path, run: RunId) -> Path:
    """Where a run's checkpoints lie in the state directory."""
    return state / "runs" / run / "checkpoints"


def find(state: Path) -> tuple[list[Saved], list[Report]]:
    """All that look whole, and a report of each that does not, with its `run`, `folder` and `error`. What was being
    written when the daemon died goes."""
    found: list[Saved] = []
    refused: list[Report] = []
    for run in sorted(path.parent.name for path in state.glob("runs/*/checkpoints")):
        for folder in sorted(folder_of(state, RunId(run)).iterdir()):
            if folder.name.startswith("."):
                shutil.rmtree(folder, ignore_errors=True)
                continue
            try:
                found.append(_read(folder, run))
            except (OSError, ValueError) as error:
                fields = {"run": run, "folder": str(folder), "error": str(error)}
                refused.append(Report("checkpoint.refused", fields, "error"))
    return found, refused


def discard(state: Path, run: RunId, step: int, version: VersionId) -> None:
    """Remove a checkpoint, if the folder of that step still holds that version."""
    folder = folder_of(state, run) / f"step-{step:06d}"
    try:
        if _read(folder, run).header.id != version:
            return
    except (OSError, ValueError):
        return
    gone = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(gone, ignore_errors=True)
    folder.rename(gone)  # at once: half of one must never be taken for a checkpoint
    shutil.rmtree(gone, ignore_errors=True)


def _read(folder: Path, run: str) -> Saved:
    """Raises OSError or ValueError."""
    saved = read_saved((folder / FILE).read_text())
    if saved.run != run:
        raise ValueError(f"it is of run {saved.run}")
    if folder.name != f"step-{saved.header.step:06d}":
        raise ValueError(f"it is of step {saved.header.step}")
    missing = [place.file for place in saved.places if not (folder / place.file).is_file()]
    if missing:
        raise ValueError(f"{missing[0]} is missing")
    return saved
