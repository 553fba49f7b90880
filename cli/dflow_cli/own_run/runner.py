"""`dflow run` from end to end: find or start a mesh, submit, show, and leave things as they were found."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import FrameType

from ..errors import EXIT_INTERRUPTED, CliError
from ..mesh import localmesh, users
from ..mesh.client import Client
from ..mesh.meshfiles import LocalNode, MeshFile
from ..mesh.reach import reach
from ..output import note, print_json
from ..runs.follow import acquaint, await_end, follow
from ..runs.outcome import Outcome, read_outcome
from ..spec.enginelook import missing_here
from ..spec.specfile import Loaded
from ..spec.submission import submit
from ..views.progress import progress
from .results import draw, keep, results_folder
from .summary import print_next, print_summary

DEFAULT_NODES = 3
CANCEL_S = 10.0  # for the daemons to stop the tasks of a cancelled run


def run_to_end(loaded: Loaded, folder: Path, to: str, nodes: int | None, as_json: bool) -> int:
    """Returns the exit code. Raises CliError."""
    with _interruptible(), _mesh(loaded, folder, to, nodes) as stays, reach(folder, to) as client:
        acquaint(client, folder)
        if not stays:
            _tell_going_on(client)
        run = submit(client, loaded)
        note(f"run {run} ({loaded.pipeline.name}): {loaded.pipeline.steps} steps")
        plot: Path | None = None
        try:
            outcome = _watch(client, folder, run)
            code = outcome.exit_code
        except KeyboardInterrupt:
            outcome = _interrupted(client, run, stays)
            code = EXIT_INTERRUPTED
        if not stays:
            outcome, plot = _bring_home(client, folder, outcome)
        if as_json:  # before the daemons are stopped, which may have to wait for another run
            print_json(outcome.to_json() | ({"plot": str(plot)} if plot else {}))
        else:
            print_summary(outcome)
            if not stays:
                print_next(outcome, folder, plot)
    return code


def _tell_going_on(client: Client) -> None:
    for run in client.call("runs")["runs"]:
        if run["state"] == "active":
            note(f"run {run['run'][:8]} ({run['name']}) goes on here beside it")


def _watch(client: Client, folder: Path, run: str) -> Outcome:
    with progress() as view:
        picture = follow(client, folder, run, view)
    return picture.outcome


def _bring_home(client: Client, folder: Path, outcome: Outcome) -> tuple[Outcome, Path | None]:
    """Keep what the mesh knows of the run in DIR, and draw its plot. A run is worth its result without them."""
    path = results_folder(folder, outcome.run) / "plot.png"
    try:
        outcome = keep(client, folder, outcome)
        draw(client, outcome.run, path)
    except CliError as problem:
        note(f"no plot: {problem.what}; {problem.hint}")
    except OSError as error:
        note(f"{error.filename}: {error.strerror}; the run's figures were not kept")
    return outcome, path if path.exists() else None


def _interrupted(client: Client, run: str, stays: bool) -> Outcome:
    if stays:
        note(
            f"the run goes on without this command; `dflow watch {run[:8]}` shows it, `dflow cancel {run[:8]}` ends it"
        )
        return read_outcome(client.call("run", {"run": run}))
    note("cancelling the run")
    client.call("cancel", {"run": run})
    return await_end(client, run, CANCEL_S)


@contextlib.contextmanager
def _mesh(loaded: Loaded, folder: Path, to: str, nodes: int | None) -> Iterator[bool]:
    """The mesh that is there, or one that ends with the block; whether it stays when the run has ended."""
    if to:
        yield True
        return
    with contextlib.ExitStack() as using:
        using.enter_context(users.use(folder))  # whoever stops the daemons here waits for us, and we for him
        up = localmesh.settled(folder)
        if up is None:
            up, is_own = _start(loaded, folder, nodes)
            if is_own:
                try:
                    yield False
                finally:
                    using.close()
                    _stop(folder, up.nodes)
                return
        if nodes not in (None, len(up.nodes)):
            note(f"{len(up.nodes)} daemons are up in {folder}: --nodes {nodes} changes nothing")
        if up.is_of_run:
            note(f"another `dflow run` started the daemons in {folder}: they stop once both have ended")
        yield not up.is_of_run


def _start(loaded: Loaded, folder: Path, nodes: int | None) -> tuple[MeshFile, bool]:
    """Start a mesh, and whether it is our own: another command may have been faster."""
    for lacking in missing_here(loaded.pipeline):  # daemons of this Python would wait for it for ever
        raise CliError(lacking.what, hint=lacking.hint)
    try:
        started = localmesh.start(folder, nodes or DEFAULT_NODES, for_one_run=True)
    except localmesh.MeshIsUp:
        if (up := localmesh.settled(folder)) is None:
            raise
        return up, False
    names = ", ".join(node.name for node in started)
    note(f"started {len(started)} daemon{'' if len(started) == 1 else 's'}: {names}")
    return MeshFile(False, started, is_of_run=True), True


def _stop(folder: Path, started: tuple[LocalNode, ...]) -> None:
    """Stop our own daemons, once no other command has a run on them; at Ctrl-C at once."""
    stop = partial(localmesh.stop, folder, among=started)
    try:
        with users.alone(folder, lambda: note("another `dflow run` goes on here: Ctrl-C stops its daemons at once")):
            stop()
    except KeyboardInterrupt:
        stop()


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM and a closed terminal end the command as Ctrl-C does, so that no daemon of its own is left behind."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
