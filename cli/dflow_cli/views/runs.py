"""Runs as a list: how far each is, how fast, for how long still, and whose it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..output import about, seconds
from ..runs.outcome import remark
from .listing import Column, Listing


def runs_listing(rows: Sequence[Mapping[str, Any]], is_narrow: bool) -> Listing:
    """`rows`: of a daemon's answer to `runs`, with what `runs/pace.py` adds. `is_narrow`: ids are cut to what names a
    run, and remarks stand in lines below."""
    ids = [str(row["run"])[:8] if is_narrow else str(row["run"]) for row in rows]
    columns = [
        Column("run", ids),
        Column("name", [str(row["name"]) for row in rows]),
        Column("state", [str(row["state"]) for row in rows]),
        Column("step", [f"{row['step']}/{row['steps']}" for row in rows]),
        Column("pace", ["-" if row.get("pace_s") is None else seconds(row["pace_s"]) for row in rows], 2),
        Column("left", ["-" if row.get("left_s") is None else about(row["left_s"]) for row in rows], 1),
        Column("age", ["-" if row.get("age_s") is None else seconds(row["age_s"]) for row in rows], 3),
        Column("owner", [str(row.get("owner") or "-") for row in rows], 4),
    ]
    remarks = [remark(row) for row in rows]
    if not is_narrow:
        return Listing([*columns, Column("remark", remarks, 5)])
    return Listing(columns, [f"{name}: {text}" for name, text in zip(ids, remarks, strict=True) if text])
