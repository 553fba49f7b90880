"""`dflow story`: the order of what several daemons tell, and what is said where they tell too little."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dflow_cli.app import main
from dflow_cli.runs.lives import parse
from tests.unit.cli.commands.test_shell import complete
from tests.unit.cli.fakedaemon import RUN, FakeDaemon

VICTIM, THIEF = "a" * 32, "b" * 32
TASK = "6/roll/p0"


def row(node: str, cause: int, time_s: float, what: str, **more: Any) -> dict[str, Any]:
    name = {VICTIM: "n0", THIEF: "n1"}[node]
    fixed = {"node": name, "node_id": node, "cause": cause, "time_s": time_s, "what": what, "tasks": [TASK]}
    return {**fixed, "began": None, "peers": [], "join": "", "records": [], "detail": "", **more}


def answer(*rows: dict[str, Any], **more: Any) -> dict[str, Any]:
    about = {"run": RUN, "name": "spell", "state": "active", "step": 6, "task": TASK, "missing": [], "gone": {}}
    known = {"names": {VICTIM: "n0", THIEF: "n1"}, "since": {"n0": 0.0, "n1": 0.0}}
    return {**about, **known, "entries": list(rows), **more}


@pytest.fixture
def theft(daemon: FakeDaemon) -> FakeDaemon:
    """A stolen task; the thief's clock is a minute slow, and the daemon sorts by clocks."""
    rows = [
        row(THIEF, 5, 40.0, "asked", peers=[VICTIM], join="77"),
        row(THIEF, 8, 40.2, "stolen", peers=[VICTIM], join="77"),
        row(THIEF, 8, 40.2, "started"),
        row(THIEF, 9, 41.0, "broke", began=8, detail="user: no such word"),
        row(VICTIM, 3, 100.1, "lent", peers=[THIEF], join="77"),
    ]
    daemon.answers["story"] = lambda _: answer(*rows)
    return daemon


def test_a_story_is_a_table_in_which_causes_come_first(
    mesh: Path, theft: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    """The loan follows from the request and the theft from the loan, whatever the clocks say."""
    assert main(["story", TASK, "--dir", str(mesh)]) == 0
    title, head, *lines = capsys.readouterr().out.splitlines()
    assert title == f"{TASK} of run {RUN[:8]} (spell), since 1970-01-01 00:00:40Z"
    assert head.split() == ["at", "node", "what", "with", "task", "event", "by", "more"]
    assert [line.split()[:3] for line in lines] == [
        ["+0.000", "n1", "asked"],
        ["+60.100", "n0", "lent"],
        ["+0.200", "n1", "stolen"],
        ["+0.200", "n1", "started"],
        ["+1.000", "n1", "broke"],
    ]
    assert "to n1" in lines[1]
    assert "from n0" in lines[2]
    assert lines[4].split()[3:] == ["-", TASK, "9", "8", "user:", "no", "such", "word"]


def test_scripts_get_the_same_order(mesh: Path, theft: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    """One object, its entries as people see them."""
    assert main(["story", f"{RUN[:6]}/{TASK}", "--dir", str(mesh), "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert [entry["what"] for entry in value["entries"]] == ["asked", "lent", "stolen", "started", "broke"]
    assert theft.asked[-1] == ("story", {"run": RUN[:6], "task": TASK, "limit": 500})


def test_who_told_nothing_and_who_forgot_is_named(
    mesh: Path, daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    """A story with holes must not look whole."""
    holes = {"missing": ["n2"], "gone": {"n3": "dead"}, "since": {"n0": 0.0, "n1": 50.0}}
    daemon.answers["story"] = lambda _: answer(row(VICTIM, 3, 40.0, "started"), **holes)
    assert main(["story", TASK, "--dir", str(mesh)]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "no answer from: n2",
        "gone, and what only they knew with them: n3 (dead)",
        "what came before is not known any more on n1 since 1970-01-01 00:00:50Z",
    ]


@pytest.mark.parametrize(
    ("step", "hint"),
    [
        (2, "step 6 has not begun: the run is at step 2"),
        (9, "n0 since 1970-01-01 00:00:00Z, n1 since 1970-01-01 00:00:00Z"),
    ],
)
def test_where_nothing_is_told_the_hint_says_why(
    mesh: Path, daemon: FakeDaemon, capsys: pytest.CaptureFixture[str], step: int, hint: str
) -> None:
    """It has not begun yet, or was forgotten since."""
    daemon.answers["story"] = lambda _: answer(step=step)
    assert main(["story", TASK, "--dir", str(mesh)]) == 1
    what, told = capsys.readouterr().err.splitlines()
    assert what == f"error: nobody tells anything of {TASK}"
    assert hint in told


def test_a_run_whose_daemons_ended_with_it_has_no_story(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What daemons remember ends with them; the message says what is left, and how to have a story."""
    place = tmp_path / "runs" / RUN
    place.mkdir(parents=True)
    (place / "outcome.json").write_text("{}")
    assert main(["story", RUN[:8], "--dir", str(tmp_path)]) == 3
    told = capsys.readouterr().err
    assert "no daemon runs here, and a task's story went with the memory of those that did" in told
    assert f"dflow tasks {RUN[:8]} --dir" in told


@pytest.mark.parametrize(
    ("about", "meant"),
    [
        ("3f9c", ("3f9c", "")),
        ("12/roll/p3", ("", "12/roll/p3")),
        ("3f9c/12/roll/p3", ("3f9c", "12/roll/p3")),
        ("12/roll", ("", "12/roll")),
    ],
)
def test_a_task_may_stand_behind_its_run(about: str, meant: tuple[str, str]) -> None:
    """Reports write both, and either can be pasted."""
    assert parse(about) == meant


def test_tasks_complete_of_the_run_before_them_or_of_the_newest(mesh: Path, daemon: FakeDaemon) -> None:
    """Nobody remembers what the parts of a stage are called."""
    line = f"dflow story --dir {mesh} --to n0"
    assert complete(f"{line} 6/", mesh) == [TASK]
    assert complete(f"{line} {RUN[:4]}/", mesh) == [f"{RUN[:4]}/{TASK}"]
    assert RUN in complete(f"{line} ", mesh)
