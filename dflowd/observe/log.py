"""Reports as lines: `time level room.happened key=value ...`, or a JSON object each.

Owns where lines go, which are worth it, and that a peer cannot fill the disk: what names a `peer`, or whom it came
`from`, is limited per name and peer, and the next line that passes says how many did not. Knows nothing of what the
reports mean.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections import OrderedDict, deque
from collections.abc import Mapping
from typing import Any, Protocol

from dflow_protocols.events import Report

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
BURST_LINES = 20  # lines of one name about one peer that pass at once
REFILL_S = 1.0  # then one more each second
REMEMBERED_PEERS = 4096  # pairs of name and peer that are counted; the longest unseen is forgotten
RECENT_REPORTS = 2000  # kept in memory for `events`; a few hundred bytes each
_PLAIN = re.compile(r"[^\s\"=]+")


class Stream(Protocol):
    """Where lines go: a file, standard error."""

    def write(self, text: str, /) -> Any: ...
    def flush(self) -> Any: ...


class ReportLog:
    """Writes reports to one stream and remembers the latest ones."""

    def __init__(self, stream: Stream, level: str, form: str = "text") -> None:
        """`form`: of FORMS."""
        self._stream, self._format = stream, FORMS[form]
        self._threshold = LEVELS[level]
        self._budgets: OrderedDict[tuple[str, str], _Budget] = OrderedDict()
        self._recent: deque[dict[str, Any]] = deque(maxlen=RECENT_REPORTS)
        self.count = 0  # of all that passed, those forgotten since included

    def write(self, report: Report, now_s: float, cause: int | None = None) -> None:
        """`now_s`: seconds since 1970, when it happened. `cause`: the number of the node's event that it came of, where
        it came of one: what else came of it, `dflow story` tells."""
        if LEVELS.get(report.level, 0) < self._threshold:
            return
        fields = dict(report.fields)
        peer = fields.get("peer") or fields.get("from")
        if peer and not self._is_within_budget(report.name, str(peer), now_s, fields):
            return
        shown = {key: _brief(value) for key, value in fields.items()}
        if cause is not None:
            shown["cause"] = cause
        self.count += 1
        entry = {"time_s": now_s, "level": report.level, "name": report.name, "fields": shown, "number": self.count}
        self._recent.append(entry)
        try:
            self._stream.write(self._format(report.level, report.name, shown, now_s))
            self._stream.flush()
        except (OSError, ValueError):  # a full disk or a closed terminal must not end the daemon
            pass

    def recent(
        self, run: str | None, limit: int, *, after: int = 0, since_s: float = 0.0, level: str = "debug"
    ) -> list[dict[str, Any]]:
        """The latest reports, oldest first: of `run` where one is given, with numbers above `after`, written since
        `since_s` (seconds since 1970), of at least this level."""
        chosen = [
            entry
            for entry in self._recent
            if (run is None or entry["fields"].get("run") == run)
            and entry["number"] > after
            and entry["time_s"] >= since_s
            and LEVELS[entry["level"]] >= LEVELS[level]
        ]
        return chosen[-limit:]

    def _is_within_budget(self, name: str, peer: str, now_s: float, fields: dict[str, Any]) -> bool:
        budget = self._budgets.pop((name, peer), None) or _Budget(now_s)
        self._budgets[(name, peer)] = budget
        if len(self._budgets) > REMEMBERED_PEERS:
            self._budgets.popitem(last=False)
        if not budget.take(now_s):
            return False
        if budget.withheld:
            fields["repeated"] = budget.withheld
            budget.withheld = 0
        return True


class _Budget:
    """A bucket of lines that fills by one each REFILL_S."""

    __slots__ = ("lines", "since", "withheld")

    def __init__(self, now_s: float) -> None:
        self.lines, self.since, self.withheld = float(BURST_LINES), now_s, 0

    def take(self, now_s: float) -> bool:
        self.lines = min(float(BURST_LINES), self.lines + max(0.0, now_s - self.since) / REFILL_S)
        self.since = now_s
        if self.lines < 1.0:
            self.withheld += 1
            return False
        self.lines -= 1.0
        return True


def format_line(level: str, name: str, fields: Mapping[str, Any], now_s: float) -> str:
    """One line, UTC with milliseconds, values quoted where they hold spaces."""
    return " ".join([_stamp(now_s), level, name, *(f"{key}={_text(value)}" for key, value in fields.items())]) + "\n"


def format_object(level: str, name: str, fields: Mapping[str, Any], now_s: float) -> str:
    """The same as a JSON object on a line: `time`, `level` and `report`, and the fields beside them."""
    known = {key: value if _is_of_json(value) else str(value) for key, value in fields.items()}
    return json.dumps({"time": _stamp(now_s), "level": level, "report": name, **known}) + "\n"


FORMS = {"text": format_line, "json": format_object}


def _stamp(now_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now_s)) + f".{int(now_s * 1000) % 1000:03d}Z"


def _is_of_json(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _brief(value: Any) -> Any:
    """A value small enough to keep and to send: numbers and texts as they are, all else as text."""
    if isinstance(value, bool | int | float) or value is None:
        return value
    if isinstance(value, str):
        return value[:1000]
    return str(value)[:1000]


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)
