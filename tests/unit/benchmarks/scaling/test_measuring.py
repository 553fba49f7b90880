"""What is measured of a mesh follows from what its daemons answer, whoever started them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from benchmarks import scaling
from benchmarks.figure import Skipped
from benchmarks.scaling import mesh
from benchmarks.scaling.mesh import Member, measure_on
from benchmarks.scaling.profile import load
from benchmarks.scaling.waits import CAUSES
from dflow_cli.folder import VARIABLE
from dflow_cli.mesh.keyfiles import key_pair

PROFILE = load("siirl-table1")
STEPS = 3


class PretendedDaemon:
    """Of another host, and a mesh of one. `state`: how the run ends."""

    def __init__(self, state: str = "done") -> None:
        self.state, self.cancelled, self.traffic = state, False, 0

    def call(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        return dict(getattr(self, f"_{method}")())

    def _submit(self) -> dict[str, Any]:
        return {"run": "ab" * 16}

    def _run(self) -> dict[str, Any]:
        return {"state": self.state, "weights": "cd" * 32}

    def _cancel(self) -> dict[str, Any]:
        self.cancelled = True
        return {}

    def _status(self) -> dict[str, Any]:
        self.traffic += 300
        return {"traffic": {lane: {"peer": {"received": self.traffic}} for lane in ("bulk", "control")}}

    def _metrics(self) -> dict[str, Any]:
        rows: list[dict[str, Any]] = [{"step": 0}]
        rows += [{"step": at + 1, "step_s": 2.0 + at, "seconds": {"roll": 1.5, "learn": 0.5}} for at in range(STEPS)]
        return {"rows": rows}

    def _tasks(self) -> dict[str, Any]:
        return {"tasks": [task for step in range(STEPS) for task in self._tasks_of(step)]}

    def _tasks_of(self, step: int) -> list[dict[str, Any]]:
        began = 10.0 * step
        spans = [(f"{step}/roll/p{at}", began, began + 2.0) for at in range(4)]
        spans += [(f"{step}/learn/b0-4", began + 2.5, began + 3.5), (f"{step}/learn/apply", began + 3.5, began + 4.0)]
        return [
            {"id": name, "node": "a", "stage": name.split("/")[1], "step": step, "started": begin, "ended": end}
            for name, begin, end in spans
        ]


def test_a_mesh_of_other_hosts_is_measured_by_what_its_daemons_answer() -> None:
    """Where their processes are not to be seen nothing is said of processors and memory."""
    found = measure_on([Member(PretendedDaemon().call, None)], PROFILE, 1, STEPS)
    assert found.step_s == 3.5, "the median of all but the first"
    assert found.bytes == {"bulk": 100.0, "control": 100.0}
    assert found.stage_s == {"roll": 1.5, "learn": 0.5}
    assert set(found.waits_s) == set(CAUSES)
    assert found.waits_s["seal"] == pytest.approx(0.5)
    assert found.ideal_s == pytest.approx(PROFILE.seconds, rel=0.15)
    assert not {"cpu_s", "daemon_cpu_s", "memory_bytes"} & found.row().keys()


def test_a_mesh_that_is_not_there_is_passed_over_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked for where every command looks that is not told a folder, and with the key that lies there."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "of the environment"))
    measure = partial(scaling.measure, lambda row: None, steps=1)
    with pytest.raises(Skipped, match=r"told: no mesh was started here.*dflow up"):
        measure(dir=str(tmp_path / "told"))
    with pytest.raises(Skipped, match=r"no daemon answered.*dflow up"):
        measure(to=f"{key_pair(tmp_path / 'key').public}@tcp://127.0.0.1:9")
    assert [path.name for path in (tmp_path / "of the environment").iterdir()] == ["client.key"]


def test_a_run_that_fails_is_no_measurement() -> None:
    with pytest.raises(RuntimeError, match="failed"):
        measure_on([Member(PretendedDaemon("failed").call, None)], PROFILE, 1, STEPS)


def test_a_run_that_nobody_waits_for_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would go on using other people's hosts."""
    daemon = PretendedDaemon("active")
    monkeypatch.setattr(mesh, "STARTUP_S", -1e9)
    with pytest.raises(RuntimeError, match="active"):
        measure_on([Member(daemon.call, None)], PROFILE, 1, STEPS)
    assert daemon.cancelled
