"""Waiting for a drained node: what is left is told when it changes, and no wait goes on for nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pytest

from dflow_cli.errors import CliError
from dflow_cli.mesh.client import Client
from dflow_cli.runs import idle
from dflow_cli.runs.idle import await_idle, standing

ID = "a" * 32
BUSY, DONE = ({"tasks": tasks, "shards": 0, "nbytes": 0} for tasks in (2, 0))


class Told:
    """A mesh that answers `nodes` with one row after the other."""

    def __init__(self, *rows: Mapping[str, Any]) -> None:
        self._rows = list(rows)

    def call(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        return {"nodes": [{"id": ID, "state": "alive", "is_drained": True, **self._rows.pop(0)}]}


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idle, "LOOK_S", 0.0)


def waited(*rows: Mapping[str, Any], left: Mapping[str, Any] = BUSY) -> list[str]:
    said: list[str] = []
    await_idle(cast(Client, Told(*rows)), "n2", ID, left, lambda left: said.append(standing("n2", left)))
    return said


def test_what_is_left_is_told_whenever_it_changes() -> None:
    """A member that gives no answer in time leaves what was known."""
    handing = {"tasks": 0, "shards": 1, "nbytes": 12_000_000}
    said = waited({"work": BUSY}, {"work": None}, {"work": handing}, {"work": DONE})
    assert said == ["n2: 2 tasks still run", "n2: 1 shard (12 MB) to hand over"]


def test_what_else_a_member_tells_is_no_change() -> None:
    """Its load and its memory are never the same twice."""
    rows = [{"work": BUSY | {"load": load}} for load in (1.5, 1.6)]
    assert waited(*rows, {"work": DONE}, left=BUSY | {"name": "n2", "id": ID}) == ["n2: 2 tasks still run"]


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"state": "dead", "work": None}, "n2 is gone"),
        ({"is_drained": False, "work": BUSY}, "n2 takes work again"),
    ],
)
def test_who_waits_for_what_never_comes_is_told(row: Mapping[str, Any], what: str) -> None:
    """The daemon died, or somebody else undid the drain."""
    with pytest.raises(CliError, match=what):
        waited(row)
