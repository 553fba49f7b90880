"""The run under one Ray driver, which goes on from its last checkpoint when a node dies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

from benchmarks.figure import Skipped
from benchmarks.goodput.account import Trial
from benchmarks.goodput.kills import Kill
from benchmarks.scaling.profile import Profile

START_S = 120.0  # of a cluster, at most
PATIENCE = 10.0  # times what the work takes


def under_a_controller(folder: Path, profile: Profile, nodes: int, steps: int, kills: Sequence[Kill]) -> Trial:
    """Raises benchmarks.figure.Skipped where Ray is missing."""
    if find_spec("ray") is None:
        raise Skipped("needs Ray: pip install 'dflowd[bench]'")
    struck = json.dumps([asdict(kill) for kill in kills])
    words = [profile.name, str(nodes), str(steps), struck, str(folder / "checkpoint.npz")]
    command = [sys.executable, "-m", "benchmarks.goodput.restarting", *words]
    limit_s = START_S + PATIENCE * steps * profile.seconds
    environment = os.environ | {"RAY_raylet_start_wait_time_s": f"{START_S:g}"}  # a loaded machine has its way
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=limit_s, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip() or done.stdout.strip())
    return Trial(**json.loads(done.stdout.splitlines()[-1]))
