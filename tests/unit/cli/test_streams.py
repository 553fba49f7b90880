"""A command's streams as shells leave them: it does its work, and no traceback tells of its output."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.cli.fakedaemon import FakeDaemon

DFLOW = f"{sys.executable} -m dflow_cli.app"


@pytest.mark.parametrize(
    ("shell", "code", "said"),
    [
        ("{dflow} ps --dir {mesh} >&-", 0, ""),
        ("{dflow} ps --dir {mesh} <&- >&- 2>&-", 0, ""),
        ("{dflow} ps --dir {mesh} >/dev/full", 2, "No space left on device"),
        ("{dflow} ps --dir {mesh} --json >/dev/full", 2, "No space left on device"),
        ("{dflow} nodes --dir {mesh} | true", 0, ""),
        ("{dflow} keys authorize allow - <&-", 2, "no line came"),
        ("PYTHONIOENCODING=ascii {dflow} ps --dir {mesh} >/dev/null", 0, ""),
    ],
)
def test_a_command_ends_in_order_whatever_its_streams_are(
    mesh: Path, daemon: FakeDaemon, shell: str, code: int, said: str
) -> None:
    """Started by cron, by a service manager or into a pipe: nobody is there to make sense of a traceback."""
    row = {"run": "ab" * 16, "name": "caf\u00e9", "state": "active", "step": 1, "steps": 2}
    daemon.answers["runs"] = lambda _: {"runs": [row]}
    command = f"set -o pipefail; {shell.format(dflow=DFLOW, mesh=mesh)}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=mesh, check=False)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
