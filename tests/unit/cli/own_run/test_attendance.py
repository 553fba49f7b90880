"""A command that stays with its run to the end, interrupted late."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from dflow_cli.mesh.client import Client
from dflow_cli.own_run import attendance
from dflow_cli.own_run.attendance import Attendance
from dflow_cli.own_run.interrupts import Interrupts
from dflow_cli.runs.outcome import Outcome, read_outcome
from tests.unit.cli.fakedaemon import RUN, told_run


@pytest.fixture
def interrupts() -> Iterator[Interrupts]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in a shell's background is deaf to it
    with Interrupts() as found:
        yield found
    signal.signal(signal.SIGINT, before)


def attend(folder: Path, interrupts: Interrupts, monkeypatch: pytest.MonkeyPatch, plot: Any, **told: Any) -> int:
    """The exit code where a run of the command's own mesh stands as told, and `plot` draws it."""
    outcome = read_outcome(told_run(**told))

    def seen(self: Attendance, client: Client) -> Outcome:
        return outcome

    monkeypatch.setattr(Attendance, "_watch", seen)
    monkeypatch.setattr(attendance, "bring_home", lambda *_: outcome)
    monkeypatch.setattr(attendance, "draw_at_home", plot)
    return Attendance(folder, False, False, interrupts, RUN, stays=False).to_end(cast(Client, None))


def test_ctrl_c_while_the_plot_is_drawn_ends_nothing(
    tmp_path: Path, interrupts: Interrupts, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All else is home by then, and drawing takes a second: the command said 130, and that the run got nowhere."""

    def draw(*asked: object) -> Path:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        return tmp_path / "plot.png"

    assert attend(tmp_path, interrupts, monkeypatch, draw, state="done") == 0
    out, err = capsys.readouterr()
    assert f"run {RUN} (toy): done, step 6 of 6" in out
    assert "next:" in err


def test_of_a_run_that_was_stopped_at_step_0_nothing_is_drawn_or_proposed(
    tmp_path: Path, interrupts: Interrupts, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It proposed to look at samples and figures that there are none of."""
    drawn = list[object]()
    attend(tmp_path, interrupts, monkeypatch, lambda *_: drawn.append(1), state="stopped", step=0)
    assert drawn == []
    assert "next:" not in capsys.readouterr().err
