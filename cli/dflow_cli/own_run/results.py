"""What a run of a mesh of its own leaves in DIR/runs/RUN: outcome, pipeline, figures, samples, tasks, nodes,
plot, checkpoint.

The daemons end with such a run, so commands that only look back read it from there (kept/).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import CliError
from ..folder import dir_option
from ..kept.leftovers import PIPELINE_FILE, Leftovers
from ..kept.source import Source, all_rows
from ..mesh.client import Client
from ..mesh.meshfiles import replace_text
from ..mesh.statefiles import results_folder
from ..output import note, plain
from ..runs.outcome import Outcome, read_outcome
from ..runs.stages import stage_names
from ..views.curves import Curves, title_of, write_png

_LISTS = {"metrics": "rows", "samples": "samples", "tasks": "tasks", "nodes": "nodes"}
MANY = 100_000  # tasks and samples kept at most


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
    path = results_folder(folder, run) / "plot.png"
    try:
        draw(Leftovers(folder), run, path)
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
        rows = all_rows(client, method, name, params)
        lines = [json.dumps(plain(row), ensure_ascii=False) for row in rows]
        replace_text(place / f"{method}.jsonl", "".join(text + "\n" for text in lines))
    replace_text(place / PIPELINE_FILE, outcome.spec.decode())
    kept = replace(outcome, checkpoint=_keep_checkpoint(outcome, place / "checkpoint"))
    about = kept.to_json() | {"stages": stage_names(outcome.spec)}  # the spec is not kept, and pictures go by its order
    replace_text(place / "outcome.json", json.dumps(about, ensure_ascii=False) + "\n")
    return kept


def draw(source: Source, run: str, path: Path) -> tuple[int, dict[str, Any]]:
    """Write the run's plot; how many steps it shows, and what is told of the run. Raises CliError."""
    about = source.call("run", {"run": run})
    rows = all_rows(source, "metrics", "rows", {"run": run})
    if not rows:
        raise CliError(f"run {run} has no figures yet", hint="wait for its first step")
    outcome = read_outcome(about)
    stages = about.get("stages") or stage_names(outcome.spec)
    write_png(Curves(rows, outcome.evals, title_of(outcome, rows), stages), path)
    return len(rows), about


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
