"""Answers from DIR what daemons would, as far as it is known there."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgpack
from blake3 import blake3

from dflow_protocols.pipeline import Pipeline, SpecError
from dflow_protocols.run_state import status as statuses
from dflow_protocols.versions import facts
from dflow_protocols.versions.saved import FILE, read_saved

from ..errors import EXIT_FAILED, EXIT_NO_DAEMON, CliError
from ..folder import dir_option
from ..mesh.meshfiles import read_mesh
from ..mesh.statefiles import (
    SHORTEST_PREFIX,
    KeptRun,
    is_home,
    kept_runs,
    node_folders,
    read_schedule,
    results_folder,
)
from . import books, logfiles
from .source import FROM_FOLDER

PIPELINE_FILE = "pipeline.json"  # what a run did, in canonical form, beside its results
PIECE_BYTES = 2 << 20  # of a file, as daemons give it

Answer = dict[str, Any]


class Leftovers:
    """A source (see source.py) where no daemon runs. Raises CliError, of exit code 3, for what only daemons know."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._methods: dict[str, Callable[[Mapping[str, Any]], Answer]] = {
            "runs": self._runs,
            "run": self._run,
            "wait": self._run,
            "metrics": self._metrics,
            "samples": self._samples,
            "tasks": self._tasks,
            "checkpoints": self._checkpoints,
            "checkpoint.files": self._files,
            "checkpoint.read": self._piece,
            "nodes": self._nodes,
            "events": self._events,
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        return

    def call(self, method: str, params: Mapping[str, Any] | None = None, deadline_s: float = 10.0) -> Answer:
        answer = self._methods.get(method)
        if answer is None:
            raise CliError(
                f"no daemon runs in {self._folder}, and only daemons know that",
                hint=f"`dflow up{dir_option(self._folder)}` starts them",
                exit_code=EXIT_NO_DAEMON,
            )
        return {**answer(params or {}), FROM_FOLDER: str(self._folder)}

    # Which runs -----------------------------------------------------------------------------------------------------

    @cached_property
    def _kept(self) -> dict[str, KeptRun]:
        return {kept.run: kept for kept in kept_runs(self._folder)}

    @cached_property
    def _home(self) -> dict[str, Answer]:
        """The outcomes of runs whose results came home."""
        found: dict[str, Answer] = {}
        for path in self._folder.glob("runs/*/outcome.json"):
            with contextlib.suppress(OSError, ValueError):
                value = json.loads(path.read_text())
                if isinstance(value, dict) and value.get("run") == path.parent.name:
                    found[path.parent.name] = value
        return found

    def _find(self, params: Mapping[str, Any]) -> str:
        text = str(params.get("run", ""))
        known = sorted({*self._kept, *self._home}) if len(text) >= SHORTEST_PREFIX else []
        found = [run for run in known if run.startswith(text)]
        if len(found) == 1:
            return found[0]
        place = dir_option(self._folder)
        if found:
            raise CliError(f"`{text}` may be {len(found)} runs", hint=f"give more digits: {', '.join(found[:4])}")
        hint = f"`dflow ps{place}` lists the runs that are; `dflow up{place}` starts daemons, which may know more"
        if len(text) < SHORTEST_PREFIX:
            hint = f"give at least {SHORTEST_PREFIX} digits of a run's id; {hint}"
        raise CliError(f"no run `{text}` is kept in {self._folder}", hint=hint, exit_code=EXIT_NO_DAEMON)

    def _runs(self, params: Mapping[str, Any]) -> Answer:
        rows = [self._about(run) for run in {*self._kept, *self._home}]
        rows.sort(key=lambda row: (row["submitted_s"] or 0.0, row["run"]))
        return {
            "runs": [{key: row[key] for key in row if key not in ("spec", "stages")} for row in rows],
            "missing": [],
        }

    def _run(self, params: Mapping[str, Any]) -> Answer:
        return self._about(self._find(params))

    def _about(self, run: str) -> Answer:
        """How a run stood when the last daemon that knew it ended."""
        kept, home = self._kept.get(run), self._home.get(run, {})
        began_s, ended_s = books.times(self._folder, run)
        base: Answer = {"run": run, "name": "", "state": "active", "step": 0, "steps": 0, "nodes": 0, "evals": []}
        row = {**base, "weights": None, "version": None, "checkpoint": {}, "wall_s": 0.0, **home}
        row["submitted_s"] = began_s if began_s is not None else row.get("submitted_s") or self._came_home_s(run)
        if spec := self._spec_at_home(run):
            row["spec"] = spec
        if kept is None or is_home(self._folder, run, kept.state):
            saved = kept.step if kept else row["step"] if row["checkpoint"] else None
            return {**row, "saved": saved, "gone": kept is None}
        told = statuses.outcome(kept.status)
        row |= {name: told[name] for name in ("weights", "version", "error", "evidence") if name in told}
        if "facts" in told:
            row["evals"] = facts.evals(tuple(sorted(told["facts"].items())))
        row |= {"state": kept.state, "step": told.get("step", max(kept.reached, kept.step)), "nodes": len(kept.nodes)}
        row |= {"saved": kept.step or None, "reached": kept.reached, "spec": kept.status.spec}
        row["checkpoint"] = {name: str(path) for name, path in kept.newest.items()}
        if began_s is not None and ended_s is not None:
            row["wall_s"] = max(0.0, ended_s - began_s)
        with contextlib.suppress(SpecError):
            pipeline = Pipeline.from_canonical(kept.status.spec)
            row |= {"name": pipeline.name, "steps": pipeline.steps}
        return row

    def _spec(self, run: str) -> bytes:
        kept = self._kept.get(run)
        return kept.status.spec if kept is not None else self._spec_at_home(run)

    def _spec_at_home(self, run: str) -> bytes:
        with contextlib.suppress(OSError):
            return (results_folder(self._folder, run) / PIPELINE_FILE).read_bytes()
        return b""

    def _came_home_s(self, run: str) -> float | None:
        if run not in self._home:
            return None
        return (results_folder(self._folder, run) / "outcome.json").stat().st_mtime

    # Rows -----------------------------------------------------------------------------------------------------------

    def _newer(self, run: str) -> KeptRun | None:
        """What the daemons' files know of a run, where that is more than what came home."""
        kept = self._kept.get(run)
        return kept if kept is not None and not is_home(self._folder, run, kept.state) else None

    def _rows(self, run: str, name: str, params: Mapping[str, Any]) -> list[Answer]:
        """Rows that came home, by step and number."""
        path = results_folder(self._folder, run) / f"{name}.jsonl"
        rows: list[Answer] = []
        with contextlib.suppress(OSError):
            for line in path.read_text().splitlines():
                with contextlib.suppress(ValueError):
                    rows.append(json.loads(line))
        return _chosen(rows, params)

    def _metrics(self, params: Mapping[str, Any]) -> Answer:
        run = self._find(params)
        newer = self._newer(run)
        if newer is None:
            return {"rows": self._rows(run, "metrics", params), "missing": []}
        rows, abandoned = books.metrics(self._folder, run, newer.schedule)
        return {"rows": _chosen(rows, params), "abandoned": _chosen(abandoned, params), "missing": []}

    def _samples(self, params: Mapping[str, Any]) -> Answer:
        run = self._find(params)
        newer = self._newer(run)
        rows = books.samples(self._folder, run, newer.schedule) if newer else self._rows(run, "samples", {})
        return {"samples": _chosen(rows, params), "missing": []}

    def _tasks(self, params: Mapping[str, Any]) -> Answer:
        run = self._find(params)
        newer = self._newer(run)
        rows = books.tasks(self._folder, run, newer.schedule) if newer else self._rows(run, "tasks", {})
        return {"tasks": _chosen(rows, params), "missing": []}

    # Checkpoints ----------------------------------------------------------------------------------------------------

    def _places(self, run: str) -> dict[tuple[int, str], tuple[Path, str]]:
        """(step, whose) -> folder and version of each checkpoint on this disk: of daemons, and what came home."""
        kept = self._kept.get(run)
        told = [
            (step, name, path) for name, steps in (kept.saved if kept else {}).items() for step, path in steps.items()
        ]
        found: dict[tuple[int, str], tuple[Path, str]] = {}
        for step, name, path in told:
            with contextlib.suppress(OSError, ValueError):
                found[step, name] = path, read_saved((path / FILE).read_text()).header.id
        home = results_folder(self._folder, run) / "checkpoint"
        with contextlib.suppress(OSError, ValueError, KeyError):
            said = json.loads((home / FILE).read_text())
            step = read_schedule(self._spec(run)).nearest(said["step"]).step
            if step not in [each for each, _ in found]:
                found[step, str(home)] = home, str(said["version"])
        return found

    def _checkpoints(self, params: Mapping[str, Any]) -> Answer:
        rows = [
            {"step": step, "node": name, "node_id": name, "folder": str(path), "version": version}
            for (step, name), (path, version) in sorted(self._places(self._find(params)).items())
        ]
        return {"checkpoints": rows, "missing": []}

    def _files(self, params: Mapping[str, Any]) -> Answer:
        place, version = self._places(self._find(params))[int(params["step"]), str(params["node_id"])]
        with _reading(place):
            names = sorted(str(file.relative_to(place)) for file in place.rglob("*") if file.is_file())
            listed = [
                {
                    "name": name,
                    "bytes": (place / name).stat().st_size,
                    "digest": blake3().update_mmap(place / name).hexdigest(),
                }
                for name in names
            ]
        return {"files": listed, "version": version}

    def _piece(self, params: Mapping[str, Any]) -> Answer:
        place, _ = self._places(self._find(params))[int(params["step"]), str(params["node_id"])]
        with _reading(place), (place / str(params["name"])).open("rb") as file:
            file.seek(int(params["offset"]))
            return {"data": file.read(PIECE_BYTES)}

    # Daemons --------------------------------------------------------------------------------------------------------

    def _nodes(self, params: Mapping[str, Any]) -> Answer:
        """Those of the mesh; with `run` as they stood when its results came home, if they did."""
        if "run" in params and (told := self._rows(self._find(params), "nodes", {})):
            return {"nodes": told, "missing": []}
        mesh = read_mesh(self._folder)
        known = {node.name: node for node in (mesh.nodes if mesh else ())}
        names = [*known, *(path.name for path in node_folders(self._folder) if path.name not in known)]
        rows = []
        for name in names:
            node = known.get(name)
            rows.append(
                {
                    "id": node.id if node else "",
                    "name": name,
                    "state": "down",
                    "incarnation": _number(self._folder / name / "state/kept/incarnation"),
                    "control": node.control if node else None,
                    "bulk": node.bulk if node else None,
                    "key": node.key if node else None,
                }
            )
        return {"nodes": rows, "missing": []}

    def _events(self, params: Mapping[str, Any]) -> Answer:
        level = str(params.get("level", "debug"))
        if level not in logfiles.LEVELS:
            raise CliError(f"no level `{level[:40]}`", hint=f"levels are {', '.join(logfiles.LEVELS)}")
        run = self._find(params) if params.get("run") else ""
        found = [
            report
            for node in sorted(path.parent for path in self._folder.glob("n*/log"))
            for report in logfiles.reports(node, run, level, float(params.get("since_s") or 0.0))
        ]
        found.sort(key=lambda report: (report["time_s"], report["node"], report["number"]))
        mesh = read_mesh(self._folder)
        names = logfiles.names({node.id: node.name for node in (mesh.nodes if mesh else ())})
        return {"events": found[-int(params.get("limit", 200)) :], "heard": {}, "names": names, "missing": []}


@contextlib.contextmanager
def _reading(place: Path) -> Iterator[None]:
    """What is done within reads files of a checkpoint. Raises CliError in place of OSError: who asks for them writes
    files, and would take it for an error of that."""
    try:
        yield
    except OSError as error:
        what, where = f"cannot be read: {error.strerror or error}", str(error.filename or place)
        hint = "export as the user that its daemons ran as, or take another one with --step"
        raise CliError(what, where=where, hint=hint, exit_code=EXIT_FAILED) from error


def _chosen(rows: list[Answer], params: Mapping[str, Any]) -> list[Answer]:
    rows = [row for row in rows if row.get("step", 0) >= params.get("since_step", 0)]
    if "before_step" in params:
        rows = [row for row in rows if row.get("step", 0) < params["before_step"]]
    if "step" in params:
        rows = [row for row in rows if row["step"] == params["step"]]
    return rows[-params["limit"] :] if "limit" in params else rows


def _number(path: Path) -> int | None:
    try:
        return int(msgpack.unpackb(path.read_bytes()))
    except (OSError, ValueError, TypeError, msgpack.UnpackException):
        return None
