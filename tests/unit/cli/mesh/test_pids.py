"""A pid that was noted may be another process's by now."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dflow_cli.mesh import localmesh
from dflow_cli.mesh.meshfiles import LocalNode, MeshFile, prepare_node, write_mesh
from dflowd.process.lifetime import began_ticks


@pytest.fixture
def editor(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], LocalNode]]:
    """Somebody who has a daemon's configuration open, under the pid that the daemon had."""
    node = prepare_node(tmp_path, "n0", (15001, 15002))
    command = [sys.executable, "-c", "input()", node.config]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        yield process, replace(node, pid=process.pid)
        process.kill()


def test_down_ends_nobody_who_has_a_daemons_pid_by_now(
    tmp_path: Path, editor: tuple[subprocess.Popen[bytes], LocalNode]
) -> None:
    """The daemon was killed, and its number went to an editor of its very configuration."""
    process, node = editor
    write_mesh(tmp_path, MeshFile(True, (replace(node, began=1),)))
    assert localmesh.running(tmp_path) is None
    assert localmesh.stop(tmp_path) == ()
    assert process.poll() is None


def test_a_daemon_that_ended_and_was_not_reaped_does_not_run(editor: tuple[subprocess.Popen[bytes], LocalNode]) -> None:
    """As it stays where the container's first process reaps nobody."""
    process, node = editor
    noted = replace(node, began=began_ticks(process.pid) or 0)
    assert localmesh.is_running(noted)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert Path(f"/proc/{process.pid}/stat").exists()
    assert not localmesh.is_running(noted)
    assert began_ticks(process.pid) is None
