"""In a shell: help that ends in an example, names that complete, colour only where it is wanted."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from rich.console import Console

from dflow_cli.app import app
from dflow_cli.views.progress import LiveView, PlainView, progress
from dflow_cli.views.screen import render
from tests.unit.cli.fakedaemon import RUN, FakeDaemon
from tests.unit.cli.views.test_cli_views import picture

COLOUR = re.compile(r"\x1b\[[0-9;]*\b(3[0-8]|4[0-8]|9[0-7])[0-9;]*m")


def commands() -> Iterator[tuple[str, str]]:
    """(name, help) of every command."""
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        for inner, one in getattr(command, "commands", {"": command}).items():
            yield f"{name} {inner}".strip(), one.help or ""


@pytest.mark.parametrize(("name", "text"), list(commands()), ids=[name for name, _ in commands()])
def test_every_commands_help_ends_in_an_example_of_it(name: str, text: str) -> None:
    """What most people read first is the last line."""
    last = text.strip().splitlines()[-1].strip()
    assert last.startswith("Example: ")
    assert f"dflow {name}" in last


def complete(words: str, folder: Path) -> list[str]:
    """What bash is told of a half-typed line, its last word empty or not."""
    count = len(words.split()) - (not words.endswith(" "))
    asked = {"_DFLOW_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(count)}
    program = [sys.executable, "-c", "import sys; from dflow_cli.app import main; sys.exit(main())"]
    done = subprocess.run(program, env=os.environ | asked, cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout.split()


def test_commands_options_and_runs_complete(tmp_path: Path) -> None:
    """Nobody types 32 digits; those of runs that a mesh left behind complete without one."""
    place = tmp_path / ".dflow" / "runs" / RUN
    place.mkdir(parents=True)
    (place / "outcome.json").write_text("{}")
    assert complete("dflow exp", tmp_path) == ["export"]
    assert "--follow" in complete("dflow logs --f", tmp_path)
    assert complete("dflow metrics ", tmp_path) == [RUN]
    assert complete(f"dflow metrics {RUN[:3]}", tmp_path) == [RUN]
    assert complete("dflow metrics ffff", tmp_path) == []


def test_runs_of_a_living_mesh_complete(mesh: Path, daemon: FakeDaemon) -> None:
    """The mesh that `--to` names is asked."""
    assert complete(f"dflow wait --dir {mesh} --to n0 ", mesh) == [RUN]


@pytest.mark.parametrize(("environment", "is_coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_no_color_takes_the_colour_away(
    environment: dict[str, str], is_coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """https://no-color.org: any value that is not empty."""
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    console = Console(width=90, force_terminal=True, color_system="truecolor")
    with console.capture() as capture:
        console.print(render(picture(), 90, 30))
    assert bool(COLOUR.search(capture.get())) == is_coloured


@pytest.mark.parametrize(
    ("is_terminal", "term", "view"),
    [(True, "xterm-256color", LiveView), (True, "dumb", PlainView), (True, "", PlainView), (False, "xterm", PlainView)],
)
def test_the_picture_is_drawn_only_where_a_cursor_moves(
    is_terminal: bool, term: str, view: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log file, an editor's shell or a serial line gets lines."""
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal, raising=False)
    assert isinstance(progress(), view)
