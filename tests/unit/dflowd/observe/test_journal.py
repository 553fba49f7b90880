"""What is kept of runs for people: written by a thread, bounded, and read back as far as it is whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dflow_protocols.books import CHECKPOINTS, COSTS, SAMPLES, TASKS, TIMES
from dflow_protocols.events import Report
from dflow_protocols.names import RunId
from dflowd.observe.journal import Journal
from tests.support.until import until

RUN, OTHER = RunId("ab" * 16), RunId("cd" * 16)
LIMIT = 16 << 20


def sample(step: int, text: str = "") -> dict[str, Any]:
    return {"step": step, "prompt": text}


def test_what_was_appended_is_on_the_disk_without_anybody_asking(tmp_path: Path) -> None:
    """A daemon that is killed a moment later has lost a second."""
    journal = Journal(tmp_path, LIMIT, print)
    journal.append(RUN, SAMPLES, sample(1))
    until(lambda: (tmp_path / RUN / "samples.jsonl").exists(), 30.0)
    assert journal.read(RUN, SAMPLES) == [sample(1)]
    journal.close()


def test_where_a_checkpoint_lies_is_on_the_disk_at_once(tmp_path: Path) -> None:
    """A daemon that is killed right after it saved one still has it to give."""
    journal = Journal(tmp_path, LIMIT, print)
    journal.append(RUN, CHECKPOINTS, {"step": 2, "folder": "/there"})
    assert Journal(tmp_path, LIMIT, print).read(RUN, CHECKPOINTS) == [{"step": 2, "folder": "/there"}]
    journal.close()


def test_damage_costs_the_lines_that_it_hit_and_is_told(tmp_path: Path) -> None:
    """Bytes that are no text, no JSON, or no row; and a line torn by a kill, behind which others were appended."""
    told: list[Report] = []
    (tmp_path / RUN).mkdir()
    torn = b'{"step": 1}\n\xff\xfe\x00\n[1]\n{"step": "x"}\n{"step": 2}\n{"st'
    (tmp_path / RUN / "samples.jsonl").write_bytes(torn)
    journal = Journal(tmp_path, LIMIT, told.append)
    journal.append(RUN, SAMPLES, sample(3))
    assert [row["step"] for row in journal.read(RUN, SAMPLES)] == [1, 2, 3]
    assert [(report.name, report.fields["lines"]) for report in told] == [("history.damaged", 4)]
    assert journal.read(RUN, TIMES) == []
    journal.close()


def test_a_line_that_is_replaced_before_it_is_written_is_written_once(tmp_path: Path) -> None:
    """What a step cost grows by each of its tasks."""
    journal = Journal(tmp_path, LIMIT, print)
    for busy_s in (1.0, 2.0, 3.0):
        journal.append(RUN, COSTS, {"life": 1.0, "step": 0, "busy_s": busy_s, "seconds": {}}, replaces=0)
    assert [row["busy_s"] for row in journal.read(RUN, COSTS)][-1] == 3.0
    journal.close()


def test_a_run_has_its_share_of_the_disk_and_all_runs_have_the_limit(tmp_path: Path) -> None:
    """Rows of years must not fill a disk; the oldest go, and what goes with a run is told."""
    told: list[Report] = []
    journal = Journal(tmp_path, LIMIT, told.append)
    for run in (RUN, OTHER, *(RunId(f"{number:032x}") for number in range(12))):
        for step in range(60):
            row = {"id": "t", "stage": "roll", "state": "done", "stolen": False, "origin": "dealt", "started": 0.0}
            journal.append(run, TASKS, {**row, "step": step, "error": "x" * 50_000})
            journal.flush()
    sizes = {folder.name: sum(file.stat().st_size for file in folder.iterdir()) for folder in tmp_path.iterdir()}
    assert max(sizes.values()) <= LIMIT // 4
    assert sum(sizes.values()) <= LIMIT * 9 // 8
    assert journal.read(RunId(f"{11:032x}"), TASKS)[-1]["step"] == 59
    assert journal.read(RUN, TASKS) == []
    assert "history.dropped" in {report.name for report in told}
    journal.close()


def test_a_disk_that_takes_nothing_costs_lines_and_says_so_once(tmp_path: Path) -> None:
    """Rows are for people: the run goes on without them."""
    told: list[Report] = []
    (tmp_path / RUN).write_text("a file where the run's folder should be")
    journal = Journal(tmp_path, LIMIT, told.append)
    for step in range(3):
        journal.append(RUN, SAMPLES, sample(step))
        journal.flush()
    assert [report.name for report in told] == ["history.unwritten"]
    journal.close()
