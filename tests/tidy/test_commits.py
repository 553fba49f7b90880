"""The history is read like the code: a line that says what a change is for, of one concern."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.tidy.sources import ROOT

LATEST = 40
MAX_SUBJECT = 72  # what `git log --oneline` shows in a terminal
SUBJECT = re.compile(r"[a-z][\w./-]*(, [a-z][\w./-]*)*: \S.*[^.\s]")  # its areas, then the sentence


def git(*words: str) -> str:
    """What git says of the checkout; none where there is none."""
    try:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def faults(subjects: list[str]) -> list[str]:
    return [
        subject
        for subject in subjects
        if len(subject) > MAX_SUBJECT or not SUBJECT.fullmatch(subject) or ";" in subject
    ]


def test_the_latest_commits_say_in_a_line_what_they_are_for() -> None:
    """`area: imperative and purpose`; a second sentence, or a second purpose after a semicolon, is a second commit."""
    if git("rev-parse", "--show-toplevel") != str(ROOT):
        pytest.skip("not a git checkout of this project")
    assert faults(git("log", f"-{LATEST}", "--no-merges", "--format=%s").splitlines()) == []


def test_the_look_at_subjects_finds_faults() -> None:
    """Of no area, of two concerns, a sentence with its full stop, too long."""
    good = "run: give the run's state one owner, so that controllers can be tested"
    bad = ["wip", "run: move; docs: say so", "Run: move", "run: move it.", f"run: {'m' * 68}"]
    assert faults([good, *bad]) == bad
