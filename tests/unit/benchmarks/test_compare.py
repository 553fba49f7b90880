"""`python -m benchmarks compare`: what a person may conclude from two sets of results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as program
from benchmarks.figure import Figure, Goal


def result(*figures: Figure, name: str = "pretended") -> str:
    return json.dumps({"name": name, "settings": {}, "figures": [each.row() for each in figures]}) + "\n"


def seconds(ours: float) -> Figure:
    return Figure("a step", "s", ours)


@pytest.fixture
def compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """The changes that the command tells of two texts."""

    def run(old: str, new: str, *words: str) -> list[dict[str, Any]]:
        (tmp_path / "old").write_text(old)
        (tmp_path / "new").write_text(new)
        program.main(["compare", str(tmp_path / "old"), str(tmp_path / "new"), "--json", *words])
        changes: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["changes"]
        return changes

    return run


@pytest.mark.parametrize(
    ("old", "new", "verdict"),
    [
        (seconds(2.0), seconds(1.0), "better"),
        (seconds(1.0), seconds(2.0), "worse"),
        (seconds(1.0), seconds(1.04), "within noise"),
        (Figure("f", "MB a second", 10.0), Figure("f", "MB a second", 5.0), "worse"),
        (Figure("f", "tokens/s", 10.0), Figure("f", "tokens/s", 20.0), "better"),
        (Figure("f", "odd", 10.0), Figure("f", "odd", 20.0), "differs"),
        (Figure("f", "odd", 10.0, goal=Goal(15)), Figure("f", "odd", 20.0, goal=Goal(15)), "worse"),
        (Figure("f", "odd", 10.0, goal=Goal(5, True)), Figure("f", "odd", 20.0, goal=Goal(5, True)), "better"),
        (Figure("f", "bytes", 0.0), Figure("f", "bytes", 0.0), "within noise"),
        (Figure("f", "bytes", 0.0), Figure("f", "bytes", 7.0), "worse"),
        (Figure("f", "kB", 350.0), Figure("f", "kB", 250.0), "better"),
    ],
)
def test_a_figure_is_better_by_its_goal_or_by_its_unit(compared: Any, old: Figure, new: Figure, verdict: str) -> None:
    """Where neither says which way is good, only that it differs is told."""
    assert [each["verdict"] for each in compared(result(old), result(new))] == [verdict]


def test_what_has_an_anchor_is_compared_by_its_ratio_to_it(compared: Any) -> None:
    """A machine that was twice as slow for both changes nothing."""
    old, new = Figure("f", "s", 1.0, "a", 2.0), Figure("f", "s", 2.0, "a", 4.0)
    (change,) = compared(result(old), result(new))
    assert (change["by"], change["ratio"], change["verdict"]) == ("ratio", 1.0, "within noise")


def test_several_runs_tell_their_own_noise(compared: Any) -> None:
    """Medians are compared, and a change must be larger than what runs of one side differ by."""
    old = "".join(result(seconds(each)) for each in (1.0, 1.1, 1.4))
    (change,) = compared(old, result(seconds(1.3)))
    assert (change["old"], change["verdict"]) == (1.1, "within noise")
    assert change["spread"] == pytest.approx(0.4 / 1.1)
    assert compared(old, result(seconds(2.0)))[0]["verdict"] == "worse"


def test_a_folder_is_all_its_files_and_other_lines_are_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a benchmark prints before its result, and what was skipped, is no result; what is on one side is named."""
    for side, figures in (("old", (seconds(1.0), Figure("gone", "s", 1.0))), ("new", (seconds(1.0),))):
        (tmp_path / side).mkdir()
        (tmp_path / side / "a.json").write_text('{"load": 2.0}\nnot json\n' + result(*figures))
        (tmp_path / side / "b.json").write_text('{"name": "gpu", "skipped": "none here", "figures": []}\n')
    program.main(["compare", str(tmp_path / "old"), str(tmp_path / "new")])
    said = capsys.readouterr().out
    assert "within noise" in said
    assert "only in OLD" in said
    assert "gpu" not in said


@pytest.mark.parametrize("text", [None, "", "no result\n", '{"name": "f", "figures": [{"figure": "f"}]}\n'])
def test_what_cannot_be_read_is_said_with_a_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None
) -> None:
    """Exit code 2, no traceback."""
    given = tmp_path / "old"
    if text is not None:
        given.write_text(text)
    with pytest.raises(SystemExit) as ended:
        program.main(["compare", str(given), str(given)])
    assert ended.value.code == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert str(given) in error
    assert hint.startswith("hint: ")
