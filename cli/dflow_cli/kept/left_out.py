"""Daemons that ran in DIR before and are not started now, and what of runs lies on their disks only."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from ..folder import dir_option
from ..mesh.statefiles import KeptRun, find_kept, kept_runs, node_folders

RUNS_TOLD = 5


def left_out(folder: Path, started: Collection[str]) -> list[str]:
    """Names, n2 before n10."""
    return [path.name for path in node_folders(folder) if path.name not in started]


def told(folder: Path, names: Sequence[str]) -> list[str]:
    """What it means that these are left out, a line each; nothing where nobody is."""
    if not names:
        return []
    lines = [f"left out: {', '.join(names)}; {how_to_start(folder, names[0])} starts all"]
    only = [text for kept in kept_runs(folder) if (text := _lacking(kept, names))]
    more = [f"and of {len(only) - RUNS_TOLD} more runs"] if len(only) > RUNS_TOLD else []
    return [*lines, *only[:RUNS_TOLD], *more]


def _lacking(kept: KeptRun, names: Collection[str]) -> str:
    """What only they have of a run: its newest checkpoint."""
    holders = list(kept.newest)
    if kept.state == "cancelled" or not holders or not set(holders) <= set(names):
        return ""
    here = max((step for name, steps in kept.saved.items() if name not in names for step in steps), default=0)
    what = f"run {kept.run[:8]}: its checkpoint of step {kept.step} lies on {' and '.join(holders)} only"
    if kept.state == "done":
        return f"{what}: without them there is none of its end"
    return f"{what}: without them it goes on at step {here}" if here else f"{what}: without them it begins at step 0"


def lying_in(folder: Path, run: str) -> list[dict[str, Any]]:
    """{node, step} of each checkpoint of a run that lies on a disk of DIR, whether its daemon runs or not."""
    found = [(name, step) for kept in find_kept(folder, run) for name, steps in kept.saved.items() for step in steps]
    return [{"node": name, "step": step} for name, step in sorted(found)]


def how_to_start(folder: Path, name: str) -> str:
    """The commands that start one daemon, of DIR or of another host, in words."""
    if not (folder / name / "config.toml").exists():
        return f"`systemctl start dflowd` on {name}"
    place = dir_option(folder)
    return f"`dflow down{place}`, then `dflow up --nodes {len(node_folders(folder))}{place}`"
