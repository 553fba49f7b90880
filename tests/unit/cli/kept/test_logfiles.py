"""Logs of daemons that have ended, as `dflow logs` reads them."""

from __future__ import annotations

from pathlib import Path

from dflow_cli.kept.logfiles import reports

TEXT = '2023-11-14T22:13:20.250Z info daemon.started name=n0 took_s=0.5 why="a word"\n'
OBJECT = '{"time": "2023-11-14T22:13:21.000Z", "level": "error", "report": "task.broke", "run": "abc", "name": "n0"}\n'


def test_lines_and_objects_are_read_alike_and_what_is_neither_is_passed_over(tmp_path: Path) -> None:
    """`log.format` may have been changed between two starts, and the last line may be torn."""
    (tmp_path / "log").write_text(TEXT + "Traceback\n" + OBJECT + '{"time": 3}\n{"time": "\n[1]\n' + OBJECT[:40])
    first, second = reports(tmp_path, "", "debug", 0.0)
    assert (first["time_s"], first["fields"]) == (1_700_000_000.25, {"name": "n0", "took_s": 0.5, "why": "a word"})
    assert (second["time_s"], second["level"], second["name"]) == (1_700_000_001.0, "error", "task.broke")
    assert second["fields"] == {"run": "abc", "name": "n0"}
    assert [each["name"] for each in reports(tmp_path, "abc", "warning", 0.0)] == ["task.broke"]
