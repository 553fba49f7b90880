"""Reports read back from the log files of daemons that have ended."""

from __future__ import annotations

import calendar
import contextlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

NEWEST_BYTES = 8 << 20  # of each daemon's log
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_LINE = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) (\w+) (\S+)(.*)")
_FIELD = re.compile(r' (\w+)=("(?:[^"\\]|\\.)*"|\S*)')


def reports(node: Path, run: str, level: str, since_s: float) -> list[dict[str, Any]]:
    """The newest of one daemon, oldest first, as `events` tells them; of one run where `run` is its id."""
    found = []
    for number, text in enumerate(_lines(node / "log")):
        report = _read(text)
        if (
            report is not None
            and LEVELS.get(report["level"], 0) >= LEVELS[level]
            and report["time_s"] >= since_s
            and run in ("", report["fields"].get("run"))
        ):
            found.append({**report, "number": number, "node": node.name, "node_id": node.name})
    return found


def _lines(path: Path) -> Iterator[str]:
    """Of the file and the one before it."""
    older, newest = b"", _tail(path, NEWEST_BYTES)
    if len(newest) < NEWEST_BYTES:
        older = _tail(path.with_name(f"{path.name}.1"), NEWEST_BYTES - len(newest))
    yield from (older + newest).decode("utf-8", "replace").splitlines()


def _tail(path: Path, most_bytes: int) -> bytes:
    with contextlib.suppress(OSError), path.open("rb") as file:
        start = max(0, file.seek(0, os.SEEK_END) - most_bytes)
        file.seek(start)
        return file.read().partition(b"\n")[2] if start else file.read()
    return b""


def _read(text: str) -> dict[str, Any] | None:
    if text.startswith("{"):
        return _read_object(text)
    line = _LINE.fullmatch(text)
    if line is None:
        return None
    stamp, level, name, rest = line.groups()
    fields = {key: _value(value) for key, value in _FIELD.findall(rest)}
    return {"time_s": _seconds(stamp), "level": level, "name": name, "fields": fields}


def _read_object(text: str) -> dict[str, Any] | None:
    """A line of `log.format = "json"`."""
    try:
        fields = json.loads(text)
        stamp, level, name = (str(fields.pop(key)) for key in ("time", "level", "report"))
        return {"time_s": _seconds(stamp), "level": level, "name": name, "fields": fields}
    except (ValueError, KeyError, RecursionError):
        return None


def _seconds(stamp: str) -> float:
    """Since 1970."""
    whole, _, milliseconds = stamp.removesuffix("Z").partition(".")
    return calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) + int(milliseconds) / 1000


def _value(text: str) -> Any:
    if text.startswith('"'):
        with contextlib.suppress(ValueError):
            return json.loads(text)
        return text
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return {"True": True, "False": False, "None": None}.get(text, text)


def names(told: Mapping[str, str]) -> dict[str, str]:
    """Of ids that reports name, as `events` tells them; daemons whose files are read go by their names."""
    return {**told, **{name: name for name in told.values()}}
