"""A task's life asked of a mesh of daemons: a theft from deal to seal, and who was killed since."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from dflow_cli.runs.lives import in_order
from tests.support.mesh import Daemon, Mesh
from tests.support.strike import await_stable, ended
from tests.support.toy import toy_pipeline


@dataclass
class Theft:
    """A run that is over, and a partition of it that n2, which is slow, lent to another daemon."""

    mesh: Mesh
    run: str
    task: str
    thief: Daemon


@pytest.fixture(scope="module")
def theft(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Theft]:
    mesh = Mesh(tmp_path_factory.mktemp("story"), 3)
    mesh.nodes["n2"].environment = {"DFLOWD_EMULATED_SPEED": "0.1"}
    with mesh:
        await_stable(mesh)
        run = mesh.submit(mesh.nodes["n0"], toy_pipeline(2, 12, 8, 50_000, generate_s=0.1, gradient_s=0.05))
        assert ended(mesh, run)["state"] == "done"
        rows = mesh.ask(mesh.nodes["n0"], "tasks", run=run)["tasks"]
        stolen = next(row for row in rows if row["stolen"] and row["stage"] == "roll")
        yield Theft(mesh, run, stolen["id"], mesh.nodes[stolen["node"]])


def told(theft: Theft) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """A daemon's answer that is not the thief, and (node, what) of its entries in order."""
    asked = next(node for node in theft.mesh.running() if node is not theft.thief)
    answer = theft.mesh.ask(asked, "story", run=theft.run, task=theft.task)
    return answer, [(row["node"], row["what"]) for row in in_order(answer["entries"])]


def test_a_theft_is_told_from_deal_to_seal(theft: Theft) -> None:
    """Who it was dealt to, who asked and lent, who claimed, ran and recorded it, and the seal that counts it."""
    answer, lines = told(theft)
    thief = theft.thief.name
    lender = next(node for node, what in lines if what == "lent")
    way = [
        (thief, "asked"),
        (lender, "lent"),
        (thief, "stolen"),
        (thief, "started"),
        (thief, "finished"),
        (thief, "recorded"),
    ]
    assert [line for line in lines if line in way][: len(way)] == way
    assert (answer["missing"], answer["gone"]) == ([], {})
    dealt = next(row for row in answer["entries"] if row["what"] == "dealt")
    assert answer["names"][dealt["peers"][0]] == lender
    recorded = next(row for row in answer["entries"] if row["what"] == "recorded")
    sealed = [row for row in answer["entries"] if row["what"] in ("sealed", "seal heard")]
    assert {row["node"] for row in sealed} == {"n0", "n1", "n2"}
    assert all(recorded["records"][0] in row["records"] for row in sealed)


def test_a_line_of_a_log_names_the_event_that_it_came_of(theft: Theft) -> None:
    """So a report is joined with what the story tells of the same turn on the same daemon."""
    events = theft.mesh.ask(theft.thief, "events", run=theft.run, limit=1000)["events"]
    mine = [event for event in events if event["node"] == theft.thief.name]
    advanced = [event["fields"]["cause"] for event in mine if event["name"] == "step.advanced"]
    assert advanced == sorted(advanced)
    assert advanced[0] > 0
    rows = theft.mesh.ask(theft.thief, "story", run=theft.run, step=0)["entries"]
    [applied] = [row for row in rows if (row["node"], row["what"]) == (theft.thief.name, "finished") and is_apply(row)]
    assert applied["cause"] in advanced


def is_apply(row: dict[str, Any]) -> bool:
    return bool(row["tasks"] == ["0/learn/apply"])


def test_a_daemon_that_was_killed_is_named_and_the_others_tell_what_they_heard_of_it(theft: Theft) -> None:
    """kill -9 takes its memory; its request, its claim and its record are known where they arrived."""
    mesh = theft.mesh
    mesh.kill(theft.thief)
    answer, _ = told(theft)
    assert [*answer["missing"], *answer["gone"]] == [theft.thief.name]
    mesh.until(lambda: told(theft)[0]["gone"] == {theft.thief.name: "dead"}, 60)
    _, lines = told(theft)
    assert theft.thief.name not in {node for node, _ in lines}
    assert {"lent", "claim heard", "record heard"} <= {what for _, what in lines}
