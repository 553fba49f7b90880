"""The run on daemons that are killed and started again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.goodput.account import Trial
from benchmarks.goodput.kills import Kill, Striker
from benchmarks.scaling.profile import Profile
from tests.support.mesh import Daemon, Mesh, Refused
from tests.support.strike import await_stable

ASK_S = 3.0
GLANCE_S = 0.05
PATIENCE = 5.0  # times what the work takes


def on_a_mesh(folder: Path, profile: Profile, nodes: int, steps: int, kills: Sequence[Kill]) -> Trial:
    with Mesh(folder, nodes) as mesh:
        await_stable(mesh)
        daemons = list(mesh.nodes.values())
        alive = list(daemons)  # the longest first

        def kill(node: int) -> None:
            alive.remove(daemons[node])
            mesh.kill(daemons[node])

        def repair(node: int) -> None:
            mesh.launch(daemons[node])
            alive.append(daemons[node])

        striker = Striker(kills, nodes, kill, repair)
        began = time.monotonic()
        run = mesh.submit(daemons[0], profile.pipeline(nodes, steps))
        while (told := _summary(mesh, alive, run))["state"] == "active":
            passed = time.monotonic() - began
            if passed > PATIENCE * steps * profile.seconds:
                raise RuntimeError(f"the run is at step {told.get('step')} after {passed:.0f} s\n{mesh.story()}")
            striker.strike(passed)
            time.sleep(GLANCE_S)
        seconds = time.monotonic() - began
        if told["state"] != "done":
            raise RuntimeError(f"the run ended as {told['state']}\n{mesh.story()}")
    return Trial("dflowd", seconds, striker.done, told["weights"][:16], {"timing": "local"})


def _summary(mesh: Mesh, alive: Sequence[Daemon], run: str) -> dict[str, Any]:
    """As the first has it that answers and knows the run."""
    for node in alive:
        with suppress(TimeoutError, Refused):
            return mesh.ask(node, "run", deadline_s=ASK_S, run=run)
    return {"state": "active"}
