"""What a run of a mesh of its own leaves in DIR/runs/RUN: outcome, figures, samples, tasks, plot, checkpoint.

The daemons end with such a run, so commands that only look back read it from here (`Archive`).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from blake3 import blake3

from dflow_protocols.versions.saved import FILE

from ..errors import CliError
from ..folder import dir_option
from ..mesh.client import Client
from ..mesh.localmesh import running
from ..mesh.meshfiles import replace_text
from ..mesh.reach import reach
from ..mesh.statefiles import results_folder
from ..output import note, plain
from ..runs.outcome import Outcome
from ..views.curves import write_png

_LISTS = {"metrics": "rows", "samples": "samples", "tasks": "tasks"}
PIECE_BYTES = 2 << 20  # of a file, as daemons give it
MANY = 100_000  # tasks and samples kept at most


class Source(Protocol):
    """Who answers questions about a run: a mesh, or the folder that it left."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...
    def call(
        self, method: str, params: Mapping[str, Any] | None = None, deadline_s: float = 10.0
    ) -> dict[str, Any]: ...


class Archive:
    """Answers from DIR/runs/RUN what a daemon would: `metrics`, `samples`, `tasks`, `run`, and of its checkpoint."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        return

    def call(self, method: str, params: Mapping[str, Any] | None = None, deadline_s: float = 10.0) -> dict[str, Any]:
        params = params or {}
        outcome: dict[str, Any] = json.loads((self._folder / "outcome.json").read_text())
        if method == "run":
            return outcome
        if method.startswith("checkpoint"):
            return self._checkpoint(method, params)
        rows = [json.loads(text) for text in (self._folder / f"{method}.jsonl").read_text().splitlines()]
        rows = [row for row in rows if row.get("step", 0) >= params.get("since_step", 0)]
        if "step" in params:
            rows = [row for row in rows if row["step"] == params["step"]]
        if "limit" in params:
            rows = rows[-params["limit"] :]
        return {_LISTS[method]: rows, "missing": []}

    def _checkpoint(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        place = self._folder / "checkpoint"
        if not place.is_dir():
            return {"checkpoints": [], "missing": []}
        facts = json.loads((place / FILE).read_text())
        if method == "checkpoints":
            row = {"step": facts["step"], "folder": str(place), "version": facts["version"], "node_id": ""}
            return {"checkpoints": [{**row, "node": str(place)}], "missing": []}
        if method == "checkpoint.files":
            files = sorted(file for file in place.rglob("*") if file.is_file())
            listed = [
                {
                    "name": str(file.relative_to(place)),
                    "bytes": file.stat().st_size,
                    "digest": blake3().update_mmap(file).hexdigest(),
                }
                for file in files
            ]
            return {"files": listed, "version": facts["version"]}
        with (place / params["name"]).open("rb") as file:
            file.seek(params["offset"])
            return {"data": file.read(PIECE_BYTES)}


def look_back(folder: Path, to: str, run: str) -> Source:
    """Who to ask about a run that may be over: a mesh that is up, else what the run left in DIR. Raises CliError."""
    if not to and running(folder) is None:
        left = sorted(place.parent for place in folder.glob(f"runs/{run}*/outcome.json"))
        if len(left) == 1 and len(run) >= 4:
            return Archive(left[0])
    return reach(folder, to)


def bring_home(client: Client, folder: Path, outcome: Outcome) -> Outcome | None:
    """Keep what the mesh knows of a run in DIR, so that its daemons may go. None where that failed, which is told: the
    daemons' state stays then."""
    try:
        return keep(client, folder, outcome)
    except CliError as problem:
        what = problem.what
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    again = f"`dflow resume {outcome.run[:8]}{dir_option(folder)}` brings them home, once that is mended"
    note(f"its results are not at home: {what}; {again}")
    return None


def draw_at_home(folder: Path, run: str) -> Path | None:
    """The plot of a run whose results lie in DIR; what is amiss is told. A run is worth its results without it."""
    place = results_folder(folder, run)
    path = place / "plot.png"
    try:
        draw(Archive(place), run, path)
    except CliError as problem:
        note(f"no plot: {problem.what}; {problem.hint}")
    except OSError as error:
        note(f"no plot: {error.filename or path}: {error.strerror or error}")
    return path if path.exists() else None


def keep(client: Client, folder: Path, outcome: Outcome) -> Outcome:
    """Bring what the mesh knows of a run that is over to DIR/runs/RUN; the outcome comes last, and says that all of it
    is there. Raises CliError and OSError.

    Returns the outcome with that folder's checkpoint, if there is one, in place of the daemons'.
    """
    place = results_folder(folder, outcome.run)
    place.mkdir(parents=True, exist_ok=True)
    for method, name in _LISTS.items():
        params: dict[str, Any] = {"run": outcome.run}
        if method != "metrics":
            params["limit"] = MANY
        rows = client.call(method, params)[name]
        lines = [json.dumps(plain(row), ensure_ascii=False) for row in rows]
        replace_text(place / f"{method}.jsonl", "".join(text + "\n" for text in lines))
    kept = replace(outcome, checkpoint=_keep_checkpoint(outcome, place / "checkpoint"))
    replace_text(place / "outcome.json", json.dumps(kept.to_json(), ensure_ascii=False) + "\n")
    return kept


def draw(source: Source, run: str, path: Path) -> int:
    """Write the run's plot; returns how many steps it shows. Raises CliError."""
    about = source.call("run", {"run": run})
    rows = source.call("metrics", {"run": run})["rows"]
    if not rows:
        raise CliError(f"run {run} has no figures yet", hint="wait for its first step")
    write_png(rows, about.get("evals") or [], path, f"{about.get('name', '')}  {str(about['run'])[:8]}")
    return len(rows)


def _keep_checkpoint(outcome: Outcome, place: Path) -> Mapping[str, str]:
    """Link (on another file system: copy) the newest checkpoint that lies on this machine."""
    for name, path in sorted(outcome.checkpoint.items()):
        if Path(path).is_dir():
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(path, place, copy_function=_link_or_copy)
            return {name: str(place)}
    return outcome.checkpoint


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
