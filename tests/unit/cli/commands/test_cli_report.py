"""`dflow report`: a file for people, an object for scripts, and what is wrong told before anything is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dflow_cli.app import main
from tests.unit.cli.fakedaemon import RUN, FakeDaemon


@pytest.fixture
def asked(mesh: Path, daemon: FakeDaemon) -> Path:
    """DIR of a mesh that knows what a report asks for."""
    daemon.answers["events"] = lambda _: {"events": [], "names": {}, "missing": ["n2"]}
    return mesh


def test_the_page_lies_where_it_was_wanted(
    asked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its path is printed; who did not answer is told, in it too. Without a name it is called after the run."""
    monkeypatch.chdir(tmp_path)
    assert main(["report", RUN[:8], "--dir", str(asked), "-o", "run.html"]) == 0
    out, err = capsys.readouterr()
    assert (out, err) == ("run.html\n", "no answer from: n2\n")
    text = (tmp_path / "run.html").read_text()
    assert text.startswith("<!DOCTYPE html>")
    assert "No answer from n2" in text
    assert main(["report", RUN[:8], "--dir", str(asked)]) == 0
    assert (tmp_path / f"{RUN[:8]}.html").is_file()


def test_scripts_get_the_figures_and_no_file_that_they_did_not_ask_for(
    asked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One object; with -o both."""
    monkeypatch.chdir(tmp_path)
    assert main(["report", RUN, "--dir", str(asked), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["run"], told["pace"]["steps"], "path" in told) == (RUN, 6, False)
    assert list(tmp_path.glob("*.html")) == []
    assert main(["report", RUN, "--dir", str(asked), "--json", "-o", "run.html"]) == 0
    assert json.loads(capsys.readouterr().out)["path"] == "run.html"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--prices", "none.yaml"), "none.yaml"),
        (("--price-per-hour", "-2"), "--price-per-hour: `-2.0` is no price an hour"),
        (("-o", "no/such/folder.html"), "no/such/folder.html"),
    ],
)
def test_wrong_input_is_two_lines_and_exit_code_2(
    asked: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    """As everywhere."""
    assert main(["report", RUN, "--dir", str(asked), *words]) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ")
    assert said in error
    assert hint.startswith("hint: ")


def test_where_nothing_is_known_of_a_run_it_ends_with_exit_code_3(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No daemon answers, and DIR keeps nothing."""
    assert main(["report", RUN, "--dir", str(tmp_path)]) == 3
    assert capsys.readouterr().err.startswith("error: ")
