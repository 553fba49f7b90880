"""What stands as wrong: a report that somebody has to know of is seen without reading logs, until it is over."""

from __future__ import annotations

import pytest

from dflow_protocols.concerns import CONCERNS
from dflow_protocols.events import Report
from dflow_protocols.reports import REPORTS
from dflowd.observe.problems import MOST_OF_A_KIND, Problems


def failed(run: str, error: str = "no luck") -> Report:
    return Report("task.failed", {"run": run, "task": "3/roll/p0", "kind": "user", "error": error}, "warning")


@pytest.mark.parametrize("name", CONCERNS)
def test_a_concern_says_its_reports_fields_and_ends_by_a_report_that_there_is(name: str) -> None:
    """A field that the report does not have would be shown as a question mark, and a wrong end would never come."""
    concern, fields = CONCERNS[name], dict.fromkeys(REPORTS[name].fields, "said")
    assert "?" not in concern.said(fields)
    assert set(concern.by) <= fields.keys()
    assert concern.hint
    for over in concern.over:
        assert over in REPORTS
        assert not concern.by or set(concern.by) & set(REPORTS[over].fields), over


def test_a_problem_of_a_run_goes_when_that_run_moves_and_no_other_one() -> None:
    """A warning that stays after it healed is not looked at the next time."""
    problems = Problems()
    for run in ("aa", "bb"):
        problems.learn(failed(run))
    problems.learn(Report("step.advanced", {"run": "aa", "step": 4}))
    (row,) = problems.rows()
    assert (row["run"], row["key"], row["level"]) == ("bb", "task.failed/bb", "warning")
    assert row["what"] == "3/roll/p0 failed and is tried again: no luck"
    assert problems.rows("aa") == []


def test_who_was_alone_is_not_once_anybody_joins() -> None:
    """A concern of the daemon itself is over by a report about whomever."""
    problems = Problems()
    problems.learn(Report("membership.alone", {"seeds": "10.0.0.7:7300, 10.0.0.8:7300"}, "warning"))
    assert ["10.0.0.7:7300, 10.0.0.8:7300" in row["what"] for row in problems.rows()] == [True]
    problems.learn(Report("membership.joined", {"node": "aa", "incarnation": 1}))
    assert problems.rows() == []


def test_errors_come_first_and_the_newest_of_a_kind_stay() -> None:
    """What one peer can cause must not push out what is wrong here."""
    problems = Problems()
    problems.note("disk", "it is full", "free some")
    for run in range(3 * MOST_OF_A_KIND):
        problems.learn(failed(f"{run:02d}"))
    rows = problems.rows()
    assert rows[0]["what"] == "it is full"
    assert len(rows) == 1 + MOST_OF_A_KIND
    assert rows[1]["run"] == f"{3 * MOST_OF_A_KIND - 1:02d}"
