"""`dflow run` and `dflow resume` from end to end: find or start a mesh, see a run to its end, and leave things as they
were found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dflow_protocols.pipeline import Pipeline

from ..errors import EXIT_INTERRUPTED, CliError
from ..folder import dir_option
from ..kept.ended import going_on
from ..mesh import statefiles
from ..mesh.client import Client
from ..mesh.reach import reach
from ..mesh.statefiles import KeptRun
from ..output import note
from ..runs.follow import acquaint
from ..runs.outcome import goes_on, read_state
from ..spec.specfile import Loaded
from ..submitting.submission import submit
from .attendance import Attendance
from .interrupts import Interrupts
from .ownmesh import Ground, own_mesh

DEFAULT_NODES = 3
KEPT_TOLD = 3  # runs that wait in DIR to be resumed


def run_to_end(loaded: Loaded, folder: Path, to: str, nodes: int | None, as_json: bool, discard: bool) -> int:
    """Returns the exit code. Raises CliError."""
    with Interrupts() as interrupts:
        if to:
            return _run(loaded, Attendance(folder, as_json, discard, interrupts), Ground(True), to)
        attendance = Attendance(folder, as_json, discard, interrupts)

        def there(ground: Ground) -> int:
            return _run(loaded, attendance, ground, "")

        return _on_own_mesh(attendance, loaded.pipeline, nodes or DEFAULT_NODES, nodes, there)


def resume_to_end(run: str, folder: Path, from_start: bool, as_json: bool) -> int:
    """Start the daemons of DIR again, and see a run that waits there to its end. Returns the exit code. Raises
    CliError."""
    kept = _kept(folder, run)
    pipeline = Pipeline.from_canonical(kept.status.spec)
    nodes = 1 + max(int(name.removeprefix("n")) for name in kept.nodes)
    with Interrupts() as interrupts:
        attendance = Attendance(folder, as_json, False, interrupts, kept.run)

        def there(ground: Ground) -> int:
            attendance.enter(ground.stays)
            with reach(folder, "") as client:
                acquaint(client, folder)
                _look_around(client, folder, ground, kept.run)
                state = read_state(client.call("run", {"run": kept.run})["state"])
                if from_start or state not in ("active", "done"):  # else it goes on by itself, or has only to come home
                    resume(client, kept.run, from_start)
                return attendance.to_end(client)

        return _on_own_mesh(attendance, pipeline, nodes, None, there)


def resume(client: Client, run: str, from_start: bool) -> str:
    """Let a run that failed, was stopped or is paused go on, and say from where; its id. Raises CliError."""
    answer = client.call("resume", {"run": run, "from_start": from_start}, deadline_s=20.0)
    for row in client.call("runs")["runs"]:
        if row["run"] == answer["run"] and read_state(row["state"]) == "active":
            note(f"run {row['run'][:8]} {goes_on(row)}")
    return str(answer["run"])


def _run(loaded: Loaded, attendance: Attendance, ground: Ground, to: str) -> int:
    attendance.enter(ground.stays)
    if ground.stays and attendance.discard:
        hint = "leave --discard out; `dflow cancel RUN` ends a run there"
        raise CliError("the mesh stays, and so do runs on it at Ctrl-C", where="--discard", hint=hint)
    with reach(attendance.folder, to) as client:
        acquaint(client, attendance.folder)
        if not ground.stays:
            _look_around(client, attendance.folder, ground)
        attendance.follow(submit(client, loaded))
        note(f"run {attendance.run} ({loaded.pipeline.name}): {loaded.pipeline.steps} steps")
        return attendance.to_end(client)


def _on_own_mesh(
    attendance: Attendance, pipeline: Pipeline, nodes: int, asked: int | None, there: Callable[[Ground], int]
) -> int:
    """Do it where a mesh is, and say what was lost where that was interrupted for good."""
    folder = attendance.folder
    try:
        with own_mesh(folder, pipeline, nodes, asked, attendance.interrupts) as ground:
            code = there(ground)
    except KeyboardInterrupt:
        if attendance.stays or not attendance.run:
            raise
        code = EXIT_INTERRUPTED
        note(f"ended at once; {going_on(folder, attendance.run)}")
    if attendance.discard and code == EXIT_INTERRUPTED and not attendance.stays:
        statefiles.discard(folder, attendance.run)
        note(f"run {attendance.run[:8]} is discarded: nothing of it is kept")
    return code


def _look_around(client: Client, folder: Path, ground: Ground, but: str = "") -> None:
    """Say what else there is on the daemons. A run of a command that was killed waits for its user, as one does that
    was stopped; on a mesh that had been started with `dflow up` it goes on."""
    waiting = []
    for row in client.call("runs")["runs"]:
        state, short = read_state(row["state"]), row["run"][:8]
        if row["run"] == but:
            continue
        if state == "active" and row["run"] in ground.abandoned:
            client.call("stop", {"run": row["run"]}, deadline_s=20.0)
            waiting.append(f"run {short} ({row['name']}, whose command was killed)")
        elif state == "active":
            note(f"run {short} ({row['name']}) goes on here beside it")
        elif state in ("stopped", "failed") and row.get("saved"):
            waiting.append(f"run {short} ({row['name']}, {state} at step {row['saved']})")
    for text in waiting[-KEPT_TOLD:] if ground.is_fresh else []:
        note(f"{text} waits here to be resumed")
    if waiting and ground.is_fresh:
        more = f" ({len(waiting)} of them)" if len(waiting) > KEPT_TOLD else ""
        note(f"`dflow ps{dir_option(folder)}` lists such runs{more}; `dflow cancel RUN` gives one up, and its disk")


def _kept(folder: Path, run: str) -> KeptRun:
    """The run that waits in DIR. Raises CliError where it is none."""
    found = statefiles.find_kept(folder, run) if len(run) >= statefiles.SHORTEST_PREFIX else []
    if len(found) > 1:
        names = ", ".join(kept.run for kept in found[:4])
        raise CliError(f"`{run}` may be {len(found)} runs", hint=f"give more digits: {names}")
    home = sorted(path.parent for path in folder.glob(f"runs/{run}*/outcome.json"))
    if found and found[0].state != "cancelled":
        return found[0]
    if found or home:
        name = found[0].run if found else home[0].name
        hint = f"what it gave lies in {statefiles.results_folder(folder, name)}; submitting its spec again is a new run"
        raise CliError(f"run {name} does not wait here to be resumed", where=str(folder), hint=hint)
    hint = f"`dflow ps{dir_option(folder)}` lists the runs that are kept here"
    raise CliError(f"no run `{run}` is kept here", where=str(folder), hint=hint)
