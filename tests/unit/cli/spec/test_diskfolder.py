"""A spec's folder on the disk of who submits."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dflow_cli.app import main


def test_a_file_whose_name_is_no_text_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Names are part of what a folder's digest is of, on all hosts."""
    assert main(["init", str(tmp_path / "own")]) == 0
    try:
        (tmp_path / "own" / "tokenizer" / os.fsdecode(b"\xff.json")).touch()
    except OSError:
        pytest.skip("this disk takes no such name")
    capsys.readouterr()
    assert main(["validate", str(tmp_path / "own" / "pipeline.yaml")]) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert error.endswith(".json: the name of this file is not UTF-8")
    assert hint.startswith("hint: ")
