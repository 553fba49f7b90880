"""How a run stood when its daemons ended, and how it goes on."""

from __future__ import annotations

from pathlib import Path

from ..errors import EXIT_NO_DAEMON, CliError
from ..folder import dir_option
from ..mesh import statefiles
from ..mesh.meshfiles import read_mesh
from ..runs.outcome import Outcome, read_outcome
from .source import Source


def how_it_stood(source: Source, folder: Path, run: str) -> Outcome:
    """Of a run that has ended. Raises CliError of one that would go on if daemons ran."""
    outcome = read_outcome(source.call("run", {"run": run}))
    if outcome.is_final:
        return outcome
    what = f"run {outcome.run} is at step {outcome.step} of {outcome.steps}, and no daemon runs in {folder}"
    raise CliError(what, hint=going_on(folder, outcome.run), exit_code=EXIT_NO_DAEMON)


def going_on(folder: Path, run: str) -> str:
    """What of a run whose daemons have ended goes on, and how; a sentence."""
    short, place = run[:8], dir_option(folder)
    kept = next(iter(statefiles.find_kept(folder, run)), None)
    home = statefiles.results_folder(folder, run)
    if (home / "outcome.json").exists() if kept is None else statefiles.is_home(folder, run, "done"):
        return f"what run {short} gave lies in {home}"
    if kept is None:
        return f"run {short} got nowhere, and nothing of it is left"
    if kept.state == "done":
        return f"the run is done: `dflow resume {short}{place}` brings its results home"
    if not kept.places:
        return f"no checkpoint of run {short} was written: `dflow resume {short}{place}` begins it again at step 0"
    lost = f", the {kept.reached - kept.step} steps after it are lost" if kept.reached > kept.step else ""
    return f"its checkpoint of step {kept.step} is kept{lost}: `dflow resume {short}{place}` goes on from there"


def cut_short(folder: Path) -> list[str]:
    """Of each run that was active when the last daemon ended: where it goes on, what is lost, and how; a line each."""
    mesh, place = read_mesh(folder), dir_option(folder)
    lines = []
    for kept in statefiles.kept_runs(folder):
        if kept.state == "active":
            again = f"dflow up{place}" if mesh is None or mesh.keeps_state else f"dflow resume {kept.run[:8]}{place}"
            lost = f"; {kept.reached - kept.step} steps after it were not saved" if kept.reached > kept.step else ""
            lines.append(f"run {kept.run[:8]} is kept at step {kept.step}{lost}: `{again}` goes on")
    return lines
