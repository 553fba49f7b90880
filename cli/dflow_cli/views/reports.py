"""Reports of daemons as lines for people or objects for scripts."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

from ..errors import CliError
from ..output import print_json

UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NODE = re.compile(r"\b[0-9a-f]{32}\b")
_PLAIN = re.compile(r"[^\s\"=]+")


def ago_s(text: str) -> float:
    """Seconds of `30s`, `10m`, `2h` or `1d`. Raises CliError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if found is None:
        hint = "a number and s, m, h or d: `--since 10m` for the last ten minutes"
        raise CliError(f"`{text}` is no span of time", where="--since", hint=hint)
    return float(found[1]) * UNITS_S[found[2]]


def print_report(event: Mapping[str, Any], names: Mapping[str, str], as_json: bool) -> None:
    """One report of a daemon's answer to `events`, on stdout; to people nodes are told by their names."""
    if as_json:
        print_json({key: event[key] for key in ("time_s", "node", "level", "name", "fields")})
    else:
        print(line(event, names), flush=True)


def line(event: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """`TIME NODE LEVEL NAME KEY=VALUE ...`, in UTC, values quoted where they hold spaces. `names`: of nodes by id."""
    at = float(event["time_s"])
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)) + f".{int(at * 1000) % 1000:03d}Z"
    fields = (f"{key}={_text(_named(value, names))}" for key, value in event["fields"].items())
    return " ".join([stamp, str(event["node"]), str(event["level"]), str(event["name"]), *fields])


def _named(value: Any, names: Mapping[str, str]) -> Any:
    """A value whose nodes are told by their names."""
    if not isinstance(value, str):
        return value
    return _NODE.sub(lambda found: names.get(found[0], found[0]), value)


def _text(value: Any) -> str:
    import json

    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)
