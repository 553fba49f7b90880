"""What monitoring is told by real daemons: figures of the mesh, health, and logs that a collector reads."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.support.mesh import Daemon, Mesh
from tests.support.toy import toy_pipeline

EXTRA = 'format = "json"\n[observe]\nlisten = 0\n'  # the first line is the last one of [log]


def logged(node: Daemon) -> list[dict[str, object]]:
    return [json.loads(line) for line in node.log_lines()]


def page(node: Daemon, path: str) -> tuple[int, str]:
    (port,) = (line["port"] for line in logged(node) if line["report"] == "exporter.listening")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
        return answer.status, answer.read().decode()


def values(node: Daemon, name: str) -> dict[tuple[str, ...], float]:
    families = text_string_to_metric_families(page(node, "/metrics")[1])
    samples = (sample for family in families for sample in family.samples if sample.name == name)
    return {tuple(sample.labels[label] for label in sorted(sample.labels)): sample.value for sample in samples}


def test_prometheus_sees_a_mesh_a_run_and_a_death(tmp_path: Path) -> None:
    """The three things that rules are written for."""
    with Mesh(tmp_path, 2, EXTRA) as mesh:
        here, there = mesh.nodes.values()
        assert page(here, "/healthz") == (200, "ok\n")
        run = mesh.submit(here, toy_pipeline(steps=2))
        mesh.until(lambda: mesh.ask(here, "run", run=run)["state"] == "done", 120)
        assert values(here, "dflowd_runs") == {("done",): 1}
        done = [values(node, "dflowd_tasks_total") for node in (here, there)]
        assert (
            sum(
                count
                for counts in done
                for (_, result, stage), count in counts.items()
                if (result, stage) == ("done", "roll")
            )
            >= 8
        )
        mesh.kill(there)
        mesh.until(lambda: values(here, "dflowd_members").get(("dead",)) == 1, 60)
        assert values(here, "dflowd_reports_total")["info", "membership.died"] == 1
