"""Wrong input ends in two lines, what and where, then the remedy, and in exit code 2; never in a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.dflow import dflow, example_folder

CHANGES = {
    "an operator's name misspelt": (
        "op: reward",
        "op: rewrd",
        "stage `score`: there is no operator `rewrd`",
        "`reward`",
    ),
    "a cycle": ("op: reward,", "op: reward, after: [learn],", "stages wait for each other", "`after`"),
    "a missing model": (
        "{init: {config: spell_llama.json, tokenizer: spell_tokenizer/}}",
        "{path: no/model}",
        "`no/model`",
        "",
    ),
    "broken YAML": ("stages:", "stages: [", "not YAML", "bracket"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_wrong_spec_is_told_in_two_lines(tmp_path: Path, what: str) -> None:
    """Before any daemon is started."""
    right, wrong, error, hint = CHANGES[what]
    spec = example_folder(tmp_path)
    text = spec.read_text()
    assert right in text
    spec.write_text(text.replace(right, wrong))
    told = dflow("run", spec, "--dir", tmp_path / "mesh", code=2).splitlines()
    assert len(told) == 2, told
    assert told[0].startswith(f"error: {spec}:")
    assert error in told[0]
    assert told[1].startswith("hint: ")
    assert hint in told[1]
    assert not (tmp_path / "mesh").exists()


def test_a_folder_that_cannot_be_written_is_told_in_two_lines(tmp_path: Path) -> None:
    """As root every folder can be written, but not one below a file."""
    (tmp_path / "file").write_text("")
    told = dflow("up", "--nodes", "1", "--dir", tmp_path / "file" / "mesh", code=2).splitlines()
    assert len(told) == 2, told
    assert told[0].startswith(f"error: {tmp_path / 'file'}")
    assert told[1].startswith("hint: ")
