"""What a run of a mesh of its own leaves for people when its daemons are gone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from dflow_cli.kept.leftovers import Leftovers
from dflow_cli.mesh.client import Client
from dflow_cli.own_run.results import keep
from dflow_cli.runs.outcome import read_outcome
from tests.unit.cli.fakedaemon import RUN, told_rows, told_run

ANSWERS: Mapping[str, Any] = {
    "metrics": {"rows": told_rows(2)},
    "samples": {"samples": []},
    "tasks": {"tasks": []},
    "nodes": {"nodes": [{"name": "n0", "state": "alive", "device": "cpu", "slots": 2}]},
}


class Daemon:
    def call(self, method: str, params: Mapping[str, Any] | None = None, deadline_s: float = 10.0) -> dict[str, Any]:
        return dict(ANSWERS[method])


def test_pipeline_nodes_and_beginning_outlive_the_daemons(tmp_path: Path) -> None:
    """A report that is made later draws the graph, names devices and knows when it began."""
    keep(cast(Client, Daemon()), tmp_path, read_outcome(told_run(spec=b'{"name":"toy"}', submitted_s=17.0)))
    folder = Leftovers(tmp_path)
    told = folder.call("run", {"run": RUN})
    assert (told["spec"], told["submitted_s"]) == (b'{"name":"toy"}', 17.0)
    assert folder.call("nodes", {"run": RUN})["nodes"] == ANSWERS["nodes"]["nodes"]
    assert folder.call("nodes")["nodes"] == []  # that run there now
