"""What daemons and runs leave in a folder."""

from __future__ import annotations

import json
from pathlib import Path

from dflow_cli.mesh import statefiles
from dflow_protocols.names import NodeId, RunId
from dflow_protocols.run_state import status as runs
from dflow_protocols.wire.steps import Roster, RunPut

RUN = RunId("3f9c" * 8)


def status_of(state: runs.Lifecycle, run: RunId = RUN) -> RunPut:
    status = RunPut(run, runs.ACTIVE, 0, b"{}", "/", (), NodeId("0" * 32), "n", Roster(0, 0, (), (), ()), b"", False)
    return status if state == runs.ACTIVE else runs.ended(status, state, {})


def leave(folder: Path, state: runs.Lifecycle, run: RunId = RUN, *, steps: int = 1, saved: bool = False) -> Path:
    """What a daemon keeps of a run: how it stood, its figures, perhaps a checkpoint. Its books' folder."""
    node = folder / "n0/state"
    (node / "kept/runs").mkdir(parents=True, exist_ok=True)
    (node / "kept/runs" / run).write_bytes(runs.dump(status_of(state, run)))
    books = node / "runs" / run
    books.mkdir(parents=True, exist_ok=True)
    if steps:
        (books / "metrics.jsonl").write_text("".join(json.dumps({"step": step + 1}) + "\n" for step in range(steps)))
    if saved:
        (books / "checkpoints/step-000050").mkdir(parents=True)
    return books


def come_home(folder: Path, state: str, run: RunId = RUN) -> None:
    place = statefiles.results_folder(folder, run)
    place.mkdir(parents=True)
    (place / "outcome.json").write_text(json.dumps({"run": run, "state": state}))
