"""A run's figures for other programs: a table, and events that TensorBoard reads."""

from __future__ import annotations

import csv
import io
import struct
from pathlib import Path

import pytest

from dflow_cli.app import main
from dflow_cli.runs.outcome import read_outcome
from dflow_cli.views.figures import CsvForm, TensorBoardForm, WandbForm
from tests.support.until import until
from tests.unit.cli.fakedaemon import RUN, told_rows, told_run


def test_a_table_has_a_column_for_every_figure_of_any_step(capsys: pytest.CaptureFixture[str]) -> None:
    """Evaluations come every few steps; a spreadsheet wants one width."""
    CsvForm().write(told_rows(4))
    table = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["step"] for row in table] == ["1", "2", "3", "4"]
    assert [row["accuracy"] for row in table] == ["", "0.5", "", "0.5"]
    assert table[0]["seconds/roll"] == "0.3"
    assert list(table[0])[:4] == ["step", "reward_mean", "accuracy", "loss"]


def test_events_hold_every_scalar_by_its_name_at_its_step(tmp_path: Path) -> None:
    """Written a second time they are there once: TensorBoard would draw both."""
    pytest.importorskip("tensorboardX")
    for _ in range(2):
        with TensorBoardForm(tmp_path.parent, tmp_path.name) as form:
            form.write(told_rows(2))
            form.write(told_rows(3)[2:])
    (file,) = tmp_path.iterdir()
    scalars = read_scalars(file)
    assert [step for name, step, _ in scalars if name == "reward_mean"] == [1, 2, 3]
    seconds = {step: value for name, step, value in scalars if name == "seconds/roll"}
    assert seconds[2] == pytest.approx(0.3)
    assert not [name for name, _, _ in scalars if name in ("step", "time_s")]


def test_weights_and_biases_gets_the_run_and_its_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network it writes to a folder, which `wandb sync` sends later."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    with WandbForm("spelling", read_outcome(told_run())) as form:
        form.write(told_rows(2))
        form.write(told_rows(3)[2:])
    (file,) = tmp_path.rglob("*.wandb")
    assert form.place == str(file.parent)
    until(lambda: b"seconds/roll" in file.read_bytes(), 60.0)  # a process of wandb's own writes
    written = file.read_bytes()
    assert RUN.encode() in written
    assert written.count(b"reward_mean") >= 3
    assert b"seconds/roll" in written
    assert b"time_s" not in written


def test_two_places_at_once_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One command writes to one place."""
    assert main(["metrics", "3f9c", "--dir", str(tmp_path), "--tensorboard", "there", "--wandb", "toy"]) == 2
    assert capsys.readouterr().err.startswith("error: --wandb: ")


def read_scalars(file: Path) -> list[tuple[str, int, float]]:
    """(name, step, value) of a file of length-prefixed records (TFRecord)."""
    from tensorboardX.proto.event_pb2 import Event

    data, found = file.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        event = Event.FromString(data[12 : 12 + length])
        found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
        data = data[16 + length :]
    return found


@pytest.mark.parametrize(
    "options", [["--format", "xml"], ["--format", "csv", "--follow"], ["--format", "csv", "--json"]]
)
def test_a_form_that_cannot_be_is_refused_before_anybody_is_asked(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 and a remedy, mesh or no mesh."""
    assert main(["metrics", "3f9c", "--dir", str(tmp_path), *options]) == 2
    assert "\nhint: " in capsys.readouterr().err
