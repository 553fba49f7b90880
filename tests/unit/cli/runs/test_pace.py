"""Paces of runs in a list: what a step took lately, and how long the rest takes at that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dflow_cli.errors import CliError
from dflow_cli.runs.pace import Paces
from dflow_protocols.simulator.toy import two_steps
from tests.unit.cli.fakedaemon import RUN, told_rows

ACTIVE: dict[str, Any] = {"run": RUN, "name": "toy", "state": "active", "step": 4, "steps": 6, "submitted_s": 0.0}


class Mesh:
    """Answers `run` and `metrics`; `asked`: the methods, in order."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, method: str, params: Mapping[str, Any]) -> Mapping[str, Any]:
        self.asked.append(method)
        return {"spec": two_steps().canonical(), "rows": told_rows(4)}


def test_a_run_is_as_fast_as_its_last_steps() -> None:
    """The first steps open engines, and say nothing of the rest."""
    (row,) = Paces().tell(Mesh(), [ACTIVE])
    assert row["pace_s"] == 0.5
    assert row["age_s"] > 0.0


def test_a_spec_is_asked_for_once() -> None:
    """It may be a megabyte, and a list is drawn anew every second."""
    mesh, paces = Mesh(), Paces()
    for _ in range(2):
        paces.tell(mesh, [ACTIVE])
    assert mesh.asked == ["run", "metrics", "metrics"]


def test_of_a_run_that_has_ended_nothing_more_is_asked() -> None:
    """A mesh remembers runs of thirty days."""
    mesh = Mesh()
    (row,) = Paces().tell(mesh, [{**ACTIVE, "state": "finished", "submitted_s": None}])
    assert (row["state"], row["pace_s"], row["left_s"], row["age_s"]) == ("done", None, None, None)
    assert mesh.asked == []


def test_a_run_that_nobody_tells_more_of_is_listed_all_the_same() -> None:
    """It was forgotten between two questions, or its daemons are busy."""

    def refuse(method: str, params: Mapping[str, Any]) -> Mapping[str, Any]:
        raise CliError("no run")

    (row,) = Paces().tell(refuse, [ACTIVE])
    assert (row["state"], row["pace_s"], row["left_s"]) == ("active", None, None)
