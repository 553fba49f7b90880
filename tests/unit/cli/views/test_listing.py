"""Lists of daemons and runs: what a narrow terminal shows, and that it cuts nothing."""

from __future__ import annotations

from typing import Any

import pytest

from dflow_cli.views.listing import Column, Listing
from dflow_cli.views.nodes import nodes_listing
from dflow_cli.views.runs import runs_listing

WORK: dict[str, Any] = {
    "running": [{"id": "12/roll/p3", "for_s": 4.2}, {"id": "12/roll/p4", "for_s": 1.0}],
    "load": 6.25,
    "cores": 8,
    "memory": {"total": 64e9, "available": 48e9, "shards": 1.5e9, "shards_limit": 8e9},
}


def node(name: str, **more: Any) -> dict[str, Any]:
    told = {"id": "ab" * 16, "name": name, "state": "alive", "control": "tcp://10.0.0.7:7300", "incarnation": 1}
    host = {"device": "cuda x8 NVIDIA H100", "slots": 8, "roles": ["trainer", "sandbox"], "facts": {"dflowd": "0.1.0"}}
    return {**told, **host, "seen_s": 0.4, "share": 0.25, "work": WORK, **more}


def cells(listing: Listing, width: int | None) -> list[dict[str, str]]:
    """The rows that are shown, by column."""
    columns = listing.fitted(width)
    return [{each.name: each.cells[row] for each in columns} for row in range(len(columns[0].cells))]


def longest(listing: Listing, width: int) -> int:
    rows = cells(listing, width)
    columns = {name: max(len(name), *(len(row[name]) for row in rows)) for name in rows[0]}
    lines = [len(line) for line in listing.wrapped(width)]
    return max(sum(columns.values()) + 2 * (len(columns) - 1), *lines, 0)


def test_what_has_no_room_goes_column_by_column_the_least_needed_first() -> None:
    """A cut cell says less than none, and a folded line is read twice."""
    listing = Listing([Column("a", ["aaaa"]), Column("b", ["bbbb"], 1), Column("c", ["cccc"], 2)])
    assert [each.name for each in listing.fitted(None)] == ["a", "b", "c"]
    assert [each.name for each in listing.fitted(15)] == ["a", "b"]
    assert [each.name for each in listing.fitted(3)] == ["a"]


def test_a_column_that_says_nothing_is_left_out() -> None:
    """Most meshes have no roles, and most runs no remark."""
    assert [each.name for each in Listing([Column("a", ["1"]), Column("b", ["-"], 1)]).fitted(None)] == ["a"]


@pytest.mark.parametrize("width", [50, 80, 120, 200])
def test_daemons_fit_the_terminal_and_always_say_what_runs(width: int) -> None:
    """Names, states and tasks are what one looks for; the rest comes as there is room."""
    withdrawn = [{"run": "r", "stage": "score", "error": "no module named reward, " * 4}]
    answer = {"nodes": [node("n10"), node("n2", withdrawn=withdrawn, is_drained=True)]}
    listing = nodes_listing(answer, is_narrow=True)
    assert longest(listing, width) <= width
    second, tenth = cells(listing, width)
    assert (second["name"], second["state"], tenth["state"]) == ("n2", "drained", "alive")
    assert tenth["running"] == "12/roll/p3 4.2 s +1"
    assert listing.wrapped(width)[0].startswith("n2 withdrew from score: ")


def test_a_pair_that_cannot_talk_is_named_once() -> None:
    """Either of the two may say so, or both; any daemon that is asked knows of it."""
    rows = [node("n0", id="a"), node("n1", id="b", apart=["c", "a", "gone"]), node("n2", id="c", apart=["b"])]
    lines = nodes_listing({"nodes": rows}, is_narrow=True).lines
    assert lines == [
        f"{one} cannot talk to {other}: others pass on what they say" for one, other in (("n0", "n1"), ("n1", "n2"))
    ]


def test_the_dead_are_not_told_of_as_those_that_others_speak_for() -> None:
    """Who could not dial one while it died says so in case it comes back."""
    rows = [node("n0", id="a", apart=["b"]), node("n1", id="b", state="dead")]
    assert nodes_listing({"nodes": rows}, is_narrow=True).lines == []


def test_a_daemon_that_says_nothing_is_listed_all_the_same() -> None:
    """It is dead, or slower than the deadline; or none runs, and the folder answers."""
    gone = {"id": "", "name": "n1", "state": "dead", "incarnation": 3, "work": None, "share": None, "seen_s": None}
    (row,) = cells(nodes_listing({"nodes": [gone]}, is_narrow=False), None)
    assert row == {"name": "n1", "state": "dead", "incarnation": "3", "running": "-"}


def test_runs_tell_pace_time_left_age_and_owner() -> None:
    """What a person asks of a run first; where it is not known there is no guess."""
    active: dict[str, Any] = {"run": "3f9c12ab" * 4, "name": "spell", "state": "active", "step": 60, "steps": 80}
    active |= {"pace_s": 2.1, "left_s": 42.0, "age_s": 200.0, "owner": "anna", "blocked": "`gpu` (stage learn)"}
    ended = {"run": "ab" * 16, "name": "old", "state": "done", "step": 9, "steps": 9, "age_s": None}
    first, second = cells(listing := runs_listing([active, ended], is_narrow=True), 80)
    assert first["run"] == "3f9c12ab"
    assert (first["step"], first["pace"], first["left"], first["owner"]) == ("60/80", "2.1 s", "about 40 s", "anna")
    assert (second["pace"], second["left"], second["age"]) == ("-", "-", "-")
    assert listing.wrapped(80) == ["3f9c12ab: blocked: `gpu` (stage learn)"]
    assert longest(listing, 60) <= 60
    whole, _ = cells(runs_listing([active, ended], is_narrow=False), None)
    assert (whole["run"], whole["remark"]) == (active["run"], "blocked: `gpu` (stage learn)")
