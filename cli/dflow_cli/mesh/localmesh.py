"""Daemons on this machine: starts a mesh in DIR, finds the one that is up there, and stops it."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path

from ..errors import EXIT_FAILED, CliError
from .client import Client, KeyPair
from .keyfiles import key_pair
from .meshfiles import (
    LocalNode,
    MeshFile,
    free_ports,
    prepare_node,
    read_mesh,
    write_allow_list,
    write_config,
    write_mesh,
)
from .statefiles import forget_what_is_home

START_S = 30.0  # until every daemon answers; one takes less than a second, many on few cores share them
LEAVE_S = 15.0  # for a clean leave, before SIGKILL
KILL_S = 15.0  # for the kernel, then
POLL_S = 0.05
OF_ONE_DAEMON = (
    "DFLOWD_NODE_NAME",
    "DFLOWD_NODE_STATE_DIR",
    "DFLOWD_LISTEN_",
    "DFLOWD_MESH_ALLOW",
    "DFLOWD_MESH_SEEDS",
    "DFLOWD_TRUST_KEY",
    "DFLOWD_LOG_FILE",
)
_PR_SET_PDEATHSIG = 1


class MeshIsUp(CliError):
    """Another command was here before."""


def running(folder: Path) -> MeshFile | None:
    """The mesh that is up in DIR, with its living daemons only; None when none is."""
    mesh = read_mesh(folder)
    if mesh is None:
        return None
    nodes = tuple(node for node in mesh.nodes if is_running(node))
    return replace(mesh, nodes=nodes) if nodes else None


def settled(folder: Path) -> MeshFile | None:
    """As `running`, once no command is about to start or stop it."""
    with _locked(folder):
        return running(folder)


def is_running(node: LocalNode) -> bool:
    """Whether the process is there and is this daemon: a pid may have gone to somebody else. A daemon that gives its
    memory back runs still, and keeps its ports and its state until it has; one that only waits to be reaped has ended.
    """
    return node.began != 0 and _began(node.pid) == node.began


def _began(pid: int) -> int:
    """When a process began, in clock ticks since the host's start; 0 if there is none that has not ended."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if state in "ZX" else int(fields[18])  # field 22 of proc(5), `state` being the third


def start(folder: Path, count: int, for_one_run: bool) -> tuple[LocalNode, ...]:
    """Start a mesh of `count` daemons in DIR and wait until all know each other.

    Daemons go on from the state that they left in DIR, and so do the runs that were active. A mesh for one run ends
    when this process does, and of its state only what is worth something stays. Raises MeshIsUp; CliError when a daemon
    does not start, and leaves none behind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        if running(folder) is not None:
            hint = "add daemons with `dflow up --add 1`; `dflow down`, then `dflow up`, starts those again that ended"
            raise MeshIsUp("a mesh is up here already", where=str(folder), hint=hint)
        before = read_mesh(folder)
        if for_one_run and before is not None and not before.keeps_state:
            forget_what_is_home(folder)
        ports = free_ports(2 * count)
        names = [f"n{index}" for index in range(count)]
        pairs = zip(ports[::2], ports[1::2], strict=True)
        fresh = [prepare_node(folder, name, pair) for name, pair in zip(names, pairs, strict=True)]
        keeps_state = not for_one_run or (before is not None and before.keeps_state)
        return _launch(folder, MeshFile(keeps_state, (), for_one_run), fresh, dies_with_us=for_one_run)


def add(folder: Path, count: int) -> tuple[LocalNode, ...]:
    """Start `count` more daemons of the mesh that is up in DIR, and return just these. Raises CliError as start()."""
    with _locked(folder):
        if running(folder) is None:
            hint = "start one with `dflow up --nodes 3`"
            raise CliError("no mesh is up here that a daemon could be added to", where=str(folder), hint=hint)
        mesh = read_mesh(folder)
        assert mesh is not None
        ports = free_ports(2 * count)
        first = 1 + max(int(node.name.removeprefix("n")) for node in mesh.nodes)
        fresh = [
            prepare_node(folder, f"n{first + index}", (ports[2 * index], ports[2 * index + 1]))
            for index in range(count)
        ]
        return _launch(folder, mesh, fresh, dies_with_us=False)


def stop(
    folder: Path, patience_s: float = LEAVE_S, among: Collection[LocalNode] | None = None
) -> tuple[LocalNode, ...]:
    """Stop every daemon of DIR: SIGTERM to all, then SIGKILL to those still there. Returns those that were up.

    `among`: none where no one of these is up; a mesh that came after theirs is somebody else's. Raises CliError when a
    daemon outlives that, too.
    """
    with _locked(folder):
        mesh, up = read_mesh(folder), running(folder)
        if mesh is None or up is None or (among is not None and not set(among) & set(up.nodes)):
            return ()
        _end(up.nodes, patience_s)
        if left := [node for node in up.nodes if is_running(node)]:
            who = ", ".join(f"{node.name} (pid {node.pid})" for node in left)
            raise CliError(
                f"still there {KILL_S:.0f} s after SIGKILL: {who}",
                where=str(folder),
                hint="the kernel gives its memory back, or waits for a disk: ask again",
                exit_code=EXIT_FAILED,
            )
        if not mesh.keeps_state:
            forget_what_is_home(folder)
        return up.nodes


def _launch(folder: Path, mesh: MeshFile, fresh: list[LocalNode], dies_with_us: bool) -> tuple[LocalNode, ...]:
    client = key_pair(folder / "client.key")
    everyone = [*mesh.nodes, *fresh]
    write_allow_list(folder, fresh, client)
    seeds = [node.endpoint for node in everyone]
    children: list[subprocess.Popen[bytes]] = []
    try:
        for index, node in enumerate(fresh):
            write_config(folder, node, seeds)
            children.append(_spawn(node, dies_with_us))
            fresh[index] = replace(node, pid=children[-1].pid, began=_began(children[-1].pid))
        write_mesh(folder, replace(mesh, nodes=(*mesh.nodes, *fresh)))
        _await_all(fresh, children, client)
    except BaseException:
        _end(tuple(fresh), patience_s=1.0)
        write_mesh(folder, mesh)
        raise
    return tuple(fresh)


def _spawn(node: LocalNode, dies_with_us: bool) -> subprocess.Popen[bytes]:
    """A daemon in a session of its own, so that Ctrl-C here does not reach it."""
    command = [sys.executable, "-m", "dflowd", "run", "--config", node.config]
    with open(node.folder / "output", "wb") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=node.folder,
            env=_environment(),
            start_new_session=True,
            preexec_fn=_die_with_parent() if dies_with_us else None,
        )


def _environment() -> dict[str, str]:
    """Ours, less the variables that would make all daemons of this mesh one: their files say what each of them is."""
    return {name: value for name, value in os.environ.items() if not name.startswith(OF_ONE_DAEMON)}


def _die_with_parent() -> Callable[[], None]:
    """A mesh of one run must not outlive it, even when the command is killed with SIGKILL."""
    libc = ctypes.CDLL(None, use_errno=True)
    return lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _await_all(fresh: list[LocalNode], children: list[subprocess.Popen[bytes]], client: KeyPair) -> None:
    """Until every new daemon answers and sees all the new ones alive."""
    wanted = {node.id for node in fresh}
    until = time.monotonic() + START_S
    for node, child in zip(fresh, children, strict=True):
        with Client([node.endpoint], client) as link:
            while not wanted <= (seen := _seen(link)):
                if child.poll() is not None:
                    raise _did_not_start(node, child.returncode)
                if time.monotonic() > until:
                    hint = f"read {node.folder / 'log'}"
                    found = f"sees {len(seen & wanted)} of {len(wanted)} daemons" if seen else "does not answer"
                    what = f"daemon {node.name} {found} after {START_S:.0f} s"
                    raise CliError(what, hint=hint, exit_code=EXIT_FAILED)
                time.sleep(POLL_S)


def _seen(link: Client) -> set[str]:
    try:
        answer = link.call("nodes", deadline_s=2.0)
    except CliError:  # not listening yet
        return set()
    return {member["id"] for member in answer["nodes"] if member["state"] == "alive"}


def _did_not_start(node: LocalNode, code: int) -> CliError:
    """The daemon's own two lines, where it wrote them."""
    lines = (node.folder / "output").read_text(errors="replace").splitlines()
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    hints = [line.removeprefix("hint: ") for line in lines if line.startswith("hint: ")]
    what = errors[-1] if errors else (lines[-1] if lines else f"it ended with code {code}")
    hint = hints[-1] if hints else f"read {node.folder / 'output'} and {node.folder / 'log'}"
    return CliError(f"daemon {node.name} did not start: {what}", hint=hint, exit_code=2 if code == 2 else EXIT_FAILED)


def _end(nodes: tuple[LocalNode, ...], patience_s: float) -> None:
    for number, wait_s in ((signal.SIGTERM, patience_s), (signal.SIGKILL, KILL_S)):
        for node in nodes:
            _signal(node, number)
        until = time.monotonic() + wait_s
        while any(is_running(node) for node in nodes):
            if time.monotonic() > until:
                break
            time.sleep(POLL_S)


def _signal(node: LocalNode, number: signal.Signals) -> None:
    """To this daemon, or to nobody: the process is held by a descriptor while it is looked at."""
    with contextlib.suppress(OSError), contextlib.ExitStack() as closing:
        process = os.pidfd_open(node.pid)
        closing.callback(os.close, process)
        if is_running(node):
            signal.pidfd_send_signal(process, number)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One command at a time starts or stops daemons in DIR."""
    if not folder.is_dir():
        yield
        return
    with open(folder / "lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
