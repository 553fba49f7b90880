"""What people and scripts read: one line a report, and no peer that fills the disk."""

from __future__ import annotations

import io
import json

from dflow_protocols.events import Report
from dflow_protocols.reports import REPORTS
from dflowd.observe.log import BURST_LINES, ReportLog

NOON = 1_700_000_000.25


def test_a_report_is_one_line_of_time_level_name_and_fields() -> None:
    """Tools split lines at spaces and at the first `=`; whatever holds either is quoted."""
    stream = io.StringIO()
    ReportLog(stream, "info").write(
        Report("task.broke", {"task": "3/roll/p7", "error": 'bad "x" = 1\nmore', "seconds": 0.125, "n": 3}), NOON
    )
    assert stream.getvalue() == (
        '2023-11-14T22:13:20.250Z info task.broke task=3/roll/p7 error="bad \\"x\\" = 1\\nmore" seconds=0.125 n=3\n'
    )


def test_a_report_may_be_an_object_with_the_same_fields() -> None:
    """What collects logs takes them apart without a rule of its own; what JSON has no word for is text."""
    stream = io.StringIO()
    fields = {"name": "n0", "seconds": 0.125, "error": 'bad "x"\n', "lag": float("inf"), "run": None}
    ReportLog(stream, "info", "json").write(Report("task.broke", fields, "error"), NOON, 7)
    (line,) = stream.getvalue().splitlines()
    head = {"time": "2023-11-14T22:13:20.250Z", "level": "error", "report": "task.broke"}
    assert json.loads(line) == {**head, **fields, "lag": "inf", "cause": 7}


def test_no_reports_field_is_named_like_what_every_line_has() -> None:
    """In an object it would take that one's place."""
    taken = {field for kind in REPORTS.values() for field in kind.fields} & {"time", "level", "report"}
    assert taken == set()


def test_reports_below_the_level_are_not_written() -> None:
    """Debug lines are many."""
    stream = io.StringIO()
    log = ReportLog(stream, "warning")
    for level in ("debug", "info", "warning", "error"):
        log.write(Report("a.b", {}, level), NOON)
    assert [line.split()[1] for line in stream.getvalue().splitlines()] == ["warning", "error"]


def test_a_peer_cannot_fill_the_log_and_nothing_is_lost_count_of() -> None:
    """One broken peer must not hide what others do, and its repeats are told as a number."""
    stream = io.StringIO()
    log = ReportLog(stream, "info")
    for _ in range(1000):
        log.write(Report("wire.refused", {"peer": "a"}, "warning"), NOON)
    log.write(Report("wire.refused", {"peer": "b"}, "warning"), NOON)
    log.write(Report("wire.refused", {"peer": "a"}, "warning"), NOON + 5.0)
    lines = stream.getvalue().splitlines()
    assert sum("peer=a" in line for line in lines) == BURST_LINES + 1
    assert sum("peer=b" in line for line in lines) == 1
    assert lines[-1].endswith(f"peer=a repeated={1000 - BURST_LINES}")


def test_a_full_disk_does_not_end_the_daemon() -> None:
    """Reports are worth less than runs."""

    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    log = ReportLog(Full(), "info")
    log.write(Report("a.b", {"run": "r"}), NOON)
    assert [entry["name"] for entry in log.recent("r", 10)] == ["a.b"]
