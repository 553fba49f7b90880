"""What the daemons of DIR left in their state directories when they ended: runs, how they stood, their checkpoints.

For daemons that have ended only: while one lives, these files are its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

from dflow_protocols.run_state import status as statuses
from dflow_protocols.versions.saved import FILE, read_saved
from dflow_protocols.wire.steps import RunPut

if TYPE_CHECKING:
    from dflow_protocols.pipeline.schedule import Schedule

SHORTEST_PREFIX = 4  # digits of a run's id, as daemons take them
TAIL_BYTES = 64 << 10  # of a file of rows; one is about a kilobyte
ANY_STEPS = 1 << 31  # of a spec that cannot be read: as many as it may have
KEPT = "state/kept/runs"  # the status of each run, of one node


@dataclass(frozen=True, slots=True)
class KeptRun:
    """A run by all state directories together. `state`: in a daemon's words. `saved`: node -> step -> folder of each
    checkpoint that looks whole there. `nodes`: those that knew the run. `places`: all folders of checkpoints, whole or
    not. `reached`: steps of the furthest version that a daemon had of it."""

    status: RunPut
    state: str
    nodes: tuple[str, ...]
    saved: Mapping[str, Mapping[int, Path]]
    places: tuple[Path, ...]
    reached: int

    @property
    def run(self) -> str:
        return self.status.run

    @property
    def step(self) -> int:
        """Of the newest checkpoint; 0 where there is none."""
        return max((step for steps in self.saved.values() for step in steps), default=0)

    @property
    def schedule(self) -> Schedule:
        return read_schedule(self.status.spec)

    @property
    def may_go_on(self) -> bool:
        """Whether there is something to go on from; what is damaged may be mended."""
        return self.state in ("active", "failed", statuses.STOPPED) and bool(self.places)

    @property
    def nbytes(self) -> int:
        """Of its checkpoints on the disk."""
        return sum(file.stat().st_size for place in self.places for file in place.rglob("*") if file.is_file())

    @property
    def newest(self) -> dict[str, Path]:
        """Node -> folder, of the newest checkpoint."""
        return {name: steps[self.step] for name, steps in sorted(self.saved.items()) if self.step in steps}


def read_schedule(spec: bytes) -> Schedule:
    """Which versions are of which step of a canonical spec; of one that cannot be read as if each made one update."""
    from dflow_protocols.pipeline import Pipeline, SpecError
    from dflow_protocols.pipeline.schedule import Schedule

    try:
        return Pipeline.from_canonical(spec).schedule
    except SpecError:
        return Schedule(ANY_STEPS, {}, range(ANY_STEPS + 1))


def node_folders(folder: Path) -> list[Path]:
    """Those of DIR that hold a daemon's state, n2 before n10."""
    return sorted((path.parent for path in folder.glob("n*/state")), key=lambda path: (len(path.name), path.name))


def is_left(folder: Path) -> bool:
    """Whether daemons or runs left anything in DIR."""
    return bool(node_folders(folder)) or next(folder.glob("runs/*/outcome.json"), None) is not None


def kept_runs(folder: Path) -> list[KeptRun]:
    """All that is known of runs there. What cannot be read is left out, and left alone."""
    found: dict[str, dict[str, RunPut]] = {}
    for node in node_folders(folder):
        for path in sorted((node / KEPT).glob("*")):
            with contextlib.suppress(OSError, ValueError, TypeError):
                status = statuses.load(path.read_bytes())
                found.setdefault(status.run, {})[node.name] = status
    return [_together(folder, told) for told in found.values()]


def find_kept(folder: Path, run: str) -> list[KeptRun]:
    """The runs whose ids begin so."""
    return [kept for kept in kept_runs(folder) if kept.run.startswith(run)]


def results_folder(folder: Path, run: str) -> Path:
    """Where what a run left for people lies."""
    return folder / "runs" / run


def is_home(folder: Path, run: str, state: str) -> bool:
    """Whether the results of a run that ended so lie in DIR: their last file is the outcome."""
    try:
        outcome = json.loads((results_folder(folder, run) / "outcome.json").read_text())
    except (OSError, ValueError):
        return False
    return isinstance(outcome, dict) and outcome.get("state") == state


def forget_run(folder: Path, run: str) -> None:
    """Delete what the daemons knew of a run, its checkpoints included."""
    for node in node_folders(folder):
        (node / KEPT / run).unlink(missing_ok=True)
        shutil.rmtree(node / "state" / "runs" / run, ignore_errors=True)


def discard(folder: Path, run: str) -> None:
    """Delete all that there is of a run."""
    forget_run(folder, run)
    shutil.rmtree(results_folder(folder, run), ignore_errors=True)
    forget_what_is_home(folder)


def forget_what_is_home(folder: Path) -> bool:
    """Delete what nobody needs: runs that were cancelled, that got nowhere, or that cannot go on and whose results lie
    in DIR; and with the last run all state. Whether some was kept."""
    for kept in kept_runs(folder):
        is_unread = (kept.reached or kept.places) and not is_home(folder, kept.run, kept.state)
        if kept.state == "cancelled" or not (is_unread or kept.may_go_on):
            forget_run(folder, kept.run)
    if any(any((node / KEPT).glob("*")) for node in node_folders(folder)):
        return True
    for node in node_folders(folder):
        shutil.rmtree(node / "state", ignore_errors=True)
    return False


def _together(folder: Path, told: Mapping[str, RunPut]) -> KeptRun:
    status = reduce(statuses.merge, told.values())
    books = {name: folder / name / "state" / "runs" / status.run for name in told}
    places = {name: sorted(book.glob("checkpoints/step-*")) for name, book in books.items()}
    schedule = read_schedule(status.spec)
    saved = {name: dict(_readable(found, schedule)) for name, found in places.items()}
    return KeptRun(
        status,
        statuses.told(status),
        tuple(told),
        {name: steps for name, steps in saved.items() if steps},
        tuple(path for found in places.values() for path in found),
        schedule.nearest(max(map(_reached, books.values()), default=0)).step,
    )


def _reached(book: Path) -> int:
    """Number of a version. Rows are in the order of steps, but for those of a branch that lost."""
    with contextlib.suppress(OSError, ValueError), (book / "metrics.jsonl").open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
        for line in reversed(file.read().splitlines()):
            with contextlib.suppress(ValueError, KeyError, TypeError):
                return int(json.loads(line)["step"])
    return 0


def _readable(places: Iterable[Path], schedule: Schedule) -> Iterator[tuple[int, Path]]:
    """By steps; of one step the latest update comes last."""
    for path in places:
        with contextlib.suppress(OSError, ValueError):
            yield schedule.nearest(read_saved((path / FILE).read_text()).header.step).step, path
