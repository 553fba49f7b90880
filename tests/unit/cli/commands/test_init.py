"""`dflow init`: a task that runs as it is, and whose files are the example's."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from dflow_cli.app import main
from dflow_cli.spec.specfile import load
from tests.support.repository import ROOT


def files(folder: Path) -> dict[str, bytes]:
    found = (file for file in folder.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    return {str(file.relative_to(folder)): file.read_bytes() for file in found}


def test_what_init_writes_is_the_example_and_has_no_mistake(tmp_path: Path) -> None:
    """One task, told in docs by the example's name and started by the command; the example is a link to it."""
    place = tmp_path / "deep" / "mine"
    assert main(["init", str(place)]) == 0
    assert files(place) == files(ROOT / "examples" / "own_reward")
    loaded = load(place / "pipeline.yaml")
    assert {"data.words.jsonl", "stages[2].config.function"} <= loaded.pipeline.digests.keys()


def test_init_replaces_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever types it twice keeps the reward that he wrote in between."""
    (tmp_path / "rewards.py").write_text("mine\n")
    assert main(["init", str(tmp_path)]) == 2
    told = capsys.readouterr().err.splitlines()
    assert told[0] == f"error: {tmp_path / 'rewards.py'}: is there already"
    assert told[1].startswith("hint: ")
    assert files(tmp_path) == {"rewards.py": b"mine\n"}


def test_on_a_full_disk_init_names_what_found_no_room(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy that breaks off names its source, which lies in the program's own folder and is all right."""

    def full(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(source))

    monkeypatch.setattr(shutil, "copyfile", full)
    assert main(["init", str(tmp_path)]) == 2
    told = capsys.readouterr().err.splitlines()
    assert told == [
        f"error: {tmp_path / 'model.json'}: No space left on device",
        "hint: free some room there, or name a place on another disk",
    ]
