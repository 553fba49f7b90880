"""The log's files: long runs and noisy neighbours must not fill the disk."""

from __future__ import annotations

from pathlib import Path

from dflowd.observe.logfile import LogFile


def test_files_stay_short_and_few_and_lose_no_line_between_them(tmp_path: Path) -> None:
    """Lines are whole, in order, the newest in the file that the configuration names."""
    file = LogFile(tmp_path / "log", max_bytes=100, keep=2)
    for number in range(40):
        file.write(f"line {number:03d}\n")
        file.flush()
    file.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "log.1", "log.2"]
    assert all(path.stat().st_size <= 100 for path in tmp_path.iterdir())
    text = "".join((tmp_path / name).read_text() for name in ("log.2", "log.1", "log"))
    assert text == "".join(f"line {number:03d}\n" for number in range(40 - len(text) // 9, 40))


def test_a_restarted_daemon_counts_what_is_there(tmp_path: Path) -> None:
    """Else each restart would let the file grow by another limit."""
    (tmp_path / "log").write_text("x" * 99 + "\n")
    file = LogFile(tmp_path / "log", max_bytes=100, keep=0)
    file.write("new\n")
    file.close()
    assert (tmp_path / "log").read_text() == "new\n"
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_where_nothing_can_be_renamed_lines_still_come(tmp_path: Path) -> None:
    """The folder may have become read-only; the daemon must not die of its log."""
    (tmp_path / "log.1").mkdir()
    (tmp_path / "log.1" / "full").write_text("in the way")
    file = LogFile(tmp_path / "log", max_bytes=10, keep=1)
    for _ in range(5):
        file.write("12345678\n")
    file.close()
    assert (tmp_path / "log").read_text().count("\n") == 5
