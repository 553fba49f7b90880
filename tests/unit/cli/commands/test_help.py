"""The first words of the command line: help that is whole, and the command that was meant."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer

from dflow_cli.app import app, main
from dflow_cli.folder import dir_option
from dflow_cli.group import ELSEWHERE
from tests.unit.cli.fakedaemon import RUN, FakeDaemon

WIDTH = 80
ROOT = typer.main.get_command(app)


def helps(command: Any = ROOT, path: str = "dflow") -> dict[str, Any]:
    """Every command and group by what is typed for it."""
    found = {path: command}
    for name, inner in getattr(command, "commands", {}).items():
        found |= helps(inner, f"{path} {name}")
    return found


@pytest.mark.parametrize("path", helps())
def test_help_fits_eighty_columns_and_cuts_no_line(
    path: str, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    """A sentence that ends in dots has to be looked up elsewhere."""
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    assert main([*path.split()[1:], "--help"]) == 0
    usage, *lines = capsys.readouterr().out.splitlines()
    assert max(map(len, [usage, *lines])) <= WIDTH
    assert [line for line in lines if "..." in line or "…" in line] == []


def test_without_a_command_help_is_what_was_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    """`dflow` alone, `dflow -h` and `dflow --help` are one question, and no mistake."""
    told = set()
    for arguments in ([], ["-h"], ["--help"]):
        assert main(arguments) == 0
        told.add(capsys.readouterr().out)
    assert len(told) == 1
    assert main(["keys"]) == 0
    assert "authorize" in capsys.readouterr().out


def test_help_lists_commands_by_what_they_are_for(capsys: pytest.CaptureFixture[str]) -> None:
    """Twenty-five names in a row say nothing."""
    main([])
    told = capsys.readouterr().out.splitlines()
    sections = [line for line in told if line.endswith(":") and not line.startswith(" ")]
    assert sections == ["Options:", "Start:", "Look:", "Results:", "Hosts:"]
    assert told.index("Hosts:") < next(index for index, line in enumerate(told) if line.startswith("  keys "))


def test_arguments_are_shown_as_they_are_typed(capsys: pytest.CaptureFixture[str]) -> None:
    """`{SPEC} [OVERLAY]...` and `list[Path]` are how it is programmed."""
    assert main(["run", "--help"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("Usage: dflow run [OPTIONS] SPEC [OVERLAY]...\n")
    assert "list[" not in told
    assert re.search(r"^  SPEC +The pipeline: a YAML file, or a Python file\.$", told, re.MULTILINE)


def test_version_is_an_option_too(capsys: pytest.CaptureFixture[str]) -> None:
    """It is what people try first."""
    assert main(["--version"]) == 0
    by_option = capsys.readouterr().out
    assert main(["version"]) == 0
    assert capsys.readouterr().out == by_option


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("stop", "`dflow down`"),
        ("status", "`dflow ps`"),
        ("metric", "`dflow metrics`"),
        ("keys atuhorize", "`dflow keys authorize`"),
    ],
)
def test_a_command_that_is_not_there_names_the_one_that_was_meant(
    typed: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """By another tool's word for it, or by a slip of the finger."""
    assert main(typed.split()) == 2
    what, hint = capsys.readouterr().err.splitlines()
    assert what.endswith(f"there is no command `{typed.split()[-1]}`")
    assert f"did you mean {meant}" in hint


def test_words_of_other_tools_lead_to_commands_that_are_there() -> None:
    """A command that is renamed takes its words along."""
    names = set(ROOT.commands)  # type: ignore[attr-defined]
    assert {word: set(to) - names for word, to in ELSEWHERE.items() if set(to) - names} == {}
    assert set(ELSEWHERE) & names == set()


def test_the_environment_may_name_the_folder_for_all_commands(
    mesh: Path, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """DFLOW_DIR stands for `--dir` where none is given, also in the commands that are proposed."""
    monkeypatch.setenv("DFLOW_DIR", str(mesh))
    assert main(["cancel", RUN]) == 0
    assert dir_option(mesh) == ""
    assert dir_option(Path(".dflow")) == " --dir .dflow"
    monkeypatch.delenv("DFLOW_DIR")
    assert dir_option(mesh) == f" --dir {mesh}"
    assert main(["cancel", RUN, "--dir", str(mesh / "elsewhere")]) == 3
