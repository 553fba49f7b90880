"""Rows that fill more than one answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from dflow_cli.kept.leftovers import Leftovers
from dflow_cli.kept.source import all_rows

FITS = 30  # rows in one answer


class Cutting(Leftovers):
    """Of `steps` steps with some rows each, it tells the newest that fit."""

    def __init__(self, steps: int, rows_a_step: int) -> None:
        self.rows = [{"step": step, "n": n} for step in range(steps) for n in range(rows_a_step)]

    def call(self, method: str, params: Mapping[str, Any] | None = None, deadline_s: float = 10.0) -> dict[str, Any]:
        asked = params or {}
        rows = [row for row in self.rows if row["step"] < asked.get("before_step", 1 << 60)]
        return {"rows": rows[-FITS:], "cut": len(rows) > FITS}


@pytest.mark.parametrize(("steps", "rows_a_step"), [(0, 1), (10, 1), (100, 1), (31, 1), (40, 3), (20, 6), (20, 7)])
def test_no_row_of_a_long_run_is_lost_or_told_twice(steps: int, rows_a_step: int) -> None:
    """An answer that was cut is no whole one: the figures of weeks come home in several."""
    source = Cutting(steps, rows_a_step)
    assert all_rows(source, "metrics", "rows", {"run": "3f9c"}) == source.rows
