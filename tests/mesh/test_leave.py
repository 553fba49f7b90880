"""A daemon that is asked to stop in the middle of a run hands over what only it has."""

from __future__ import annotations

from pathlib import Path

from tests.support.alone import weights_of
from tests.support.mesh import Mesh
from tests.support.strike import all_stages, ended, running_tasks


def test_daemons_that_leave_one_after_the_other_change_nothing(tmp_path: Path) -> None:
    """Maintenance takes hosts away under a run; the last one ends it alone, in the same weights."""
    with Mesh(tmp_path, 3) as mesh:
        first, second, last = mesh.running()
        run = mesh.submit(first, all_stages())
        for leaving, stage in ((first, "roll"), (second, "learn")):
            mesh.until(lambda stage=stage: running_tasks(mesh, run, stage, ""), 60)  # type: ignore[misc]
            assert mesh.terminate(leaving) == 0
            assert "daemon.stopped clean=True" in leaving.log_lines()[-1]
        answer = ended(mesh, run, [last])
        assert (answer["state"], answer["weights"]) == ("done", weights_of(all_stages()))
        assert not [line for line in last.log_lines() if "membership.died" in line]
