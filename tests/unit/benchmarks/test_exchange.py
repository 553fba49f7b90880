"""The exchange beside gloo: it ends, also where a run does not."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.micro import exchange


class Stuck:
    """A mesh in which every run stays active."""

    def running(self) -> list[Any]:
        return [SimpleNamespace(pid=1, children=list), SimpleNamespace(pid=1, children=list)]

    def submit(self, *asked: object) -> str:
        return "run"

    def ask(self, *asked: object, **words: object) -> dict[str, str]:
        return {"state": "active"}

    def story(self) -> str:
        return "n0 waits"


def test_a_run_that_never_ends_is_told_with_what_its_daemons_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would hold up all other benchmarks of a night, and nobody would know why."""
    monkeypatch.setattr(exchange, "RUN_S", 0.0)
    monkeypatch.setattr(exchange, "processor_s", lambda mesh: 0.0)
    with pytest.raises(TimeoutError, match="n0 waits"):
        exchange.by_mesh(Stuck(), 16_000_000, "float32", "1")  # type: ignore[arg-type]


def test_a_sum_by_gloo_that_never_ends_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gloo itself waits for half an hour, and for a process that stops without dying for ever."""
    hanging = [sys.executable, "-c", "import time; time.sleep(600)"]
    group = exchange.Group.__new__(exchange.Group)
    group.processes = [subprocess.Popen(hanging, stdout=subprocess.PIPE, text=True)]
    monkeypatch.setattr(exchange, "RUN_S", 0.1)
    with pytest.raises(TimeoutError, match="gloo"):
        group.ended()
    assert group.processes[0].wait(30) < 0, "it was killed"
