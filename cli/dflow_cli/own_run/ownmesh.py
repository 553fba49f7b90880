"""The mesh that a command runs on: the one that is there, or one that it starts and that ends with it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dflow_protocols.pipeline import Pipeline

from ..errors import CliError
from ..mesh import localmesh, users
from ..mesh.meshfiles import LocalNode, MeshFile
from ..mesh.statefiles import kept_runs
from ..output import note
from ..spec.enginelook import missing_here
from .interrupts import Interrupts

HURRIED_S = 0.1  # for a clean leave of daemons that are to end at once


@dataclass(frozen=True, slots=True)
class Ground:
    """`stays`: when the command has ended. `is_fresh`: this command started it. `abandoned`: runs of commands that were
    killed, as they lay on the disks before; another command may have begun one since."""

    stays: bool
    is_fresh: bool = False
    abandoned: frozenset[str] = frozenset()


@contextlib.contextmanager
def own_mesh(
    folder: Path, pipeline: Pipeline, nodes: int, asked: int | None, interrupts: Interrupts
) -> Iterator[Ground]:
    """The mesh that is up in DIR, else one of `nodes` daemons. `asked`: how many the user wants, if any."""
    users.await_end(folder, lambda: note(f"the daemons of a killed `dflow run` are ending in {folder}"))
    with contextlib.ExitStack() as using:
        using.enter_context(users.use(folder))  # whoever stops the daemons here waits for us, and we for him
        up = localmesh.settled(folder)
        if up is None:
            before = frozenset(kept.run for kept in kept_runs(folder))
            up, is_own = _start(folder, pipeline, nodes)
            if is_own:
                with _stopping(folder, up.nodes, using, interrupts):
                    yield Ground(False, True, frozenset() if up.keeps_state else before)
                return
        if asked not in (None, len(up.nodes)):
            note(f"{len(up.nodes)} daemons are up in {folder}: --nodes {asked} changes nothing")
        if up.is_of_run:
            note(f"another `dflow run` started the daemons in {folder}: they stop once both have ended")
        yield Ground(not up.is_of_run)


def _start(folder: Path, pipeline: Pipeline, nodes: int) -> tuple[MeshFile, bool]:
    """Start a mesh, and whether it is our own: another command may have been faster."""
    for lacking in missing_here(pipeline):  # daemons of this Python would wait for it for ever
        raise CliError(lacking.what, hint=lacking.hint)
    try:
        started = localmesh.start(folder, nodes, for_one_run=True)
    except localmesh.MeshIsUp:
        if (up := localmesh.settled(folder)) is None:
            raise
        return up, False
    names = ", ".join(node.name for node in started)
    note(f"started {len(started)} daemon{'' if len(started) == 1 else 's'}: {names}")
    up = localmesh.running(folder)
    return (up or MeshFile(False, started, is_of_run=True)), True


@contextlib.contextmanager
def _stopping(
    folder: Path, started: tuple[LocalNode, ...], using: contextlib.ExitStack, interrupts: Interrupts
) -> Iterator[None]:
    """Stop our own daemons after the block, once no other command has a run on them; at Ctrl-C at once."""
    try:
        yield
    except KeyboardInterrupt:  # a second one, or one before there was anything to keep
        interrupts.ignore()
        using.close()
        _stop_at_once(folder, started)
        raise
    except BaseException:
        using.close()
        _stop(folder, started, interrupts)
        raise
    using.close()
    _stop(folder, started, interrupts)


def _stop(folder: Path, started: tuple[LocalNode, ...], interrupts: Interrupts) -> None:
    try:
        with users.alone(folder, lambda: note("another `dflow run` goes on here: Ctrl-C stops its daemons at once")):
            localmesh.stop(folder, among=started)
    except KeyboardInterrupt:
        interrupts.ignore()
        _stop_at_once(folder, started)


def _stop_at_once(folder: Path, started: tuple[LocalNode, ...]) -> None:
    localmesh.stop(folder, HURRIED_S, among=started)
