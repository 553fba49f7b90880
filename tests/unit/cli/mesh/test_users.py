"""Who needs the mesh of a `dflow run`, by locks that no killed command leaves behind."""

from __future__ import annotations

import threading
from pathlib import Path

from dflow_cli.mesh.users import alone, use
from tests.support.until import until


def test_several_commands_use_a_mesh_at_once(tmp_path: Path) -> None:
    with use(tmp_path / "new"), use(tmp_path / "new"):
        pass
    waits: list[None] = []
    with alone(tmp_path / "new", lambda: waits.append(None)):
        assert waits == []


def test_who_stops_a_mesh_waits_for_its_users_and_they_for_him(tmp_path: Path) -> None:
    """Neither goes on while the other is at it."""
    order: list[str] = []

    def stop() -> None:
        with alone(tmp_path, lambda: order.append("waits")):
            order.append("stops")

    with use(tmp_path):
        stopper = threading.Thread(target=stop)
        stopper.start()
        until(lambda: order == ["waits"], 60.0)
        order.append("used")
    stopper.join()
    with use(tmp_path):
        order.append("used again")
    assert order == ["waits", "used", "stops", "used again"]
