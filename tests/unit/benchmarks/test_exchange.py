"""The exchange beside gloo: it ends, also where a run does not."""

from __future__ import annotations

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
