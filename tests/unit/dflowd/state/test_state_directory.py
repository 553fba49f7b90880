"""What the protocols rely on: what was kept is there after a crash, and one identity lives once."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dflowd.state import directory as state
from dflowd.state.directory import StateDirectory, StateError


def test_each_start_has_a_higher_incarnation(tmp_path: Path) -> None:
    """Others tell a restarted node from its old life by it."""
    seen = []
    for _ in range(3):
        directory = StateDirectory(tmp_path / "s")
        seen.append(directory.next_incarnation())
        directory.close()
    assert seen == [1, 2, 3]


def test_a_kept_value_is_the_old_or_the_new_one_whenever_the_process_dies(tmp_path: Path) -> None:
    """A torn run record would lose the run."""
    script = (
        "import sys, pathlib; from dflowd.state.directory import StateDirectory\n"
        "d = StateDirectory(pathlib.Path(sys.argv[1])); n = 0\n"
        "while True:\n"
        "    d.write('runs/r', bytes([n % 256]) * 300_000); n += 1; print(n, flush=True)\n"
    )
    for _ in range(3):
        child = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        for _ in range(3):
            child.stdout.readline()
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
        directory = StateDirectory(tmp_path)
        kept = directory.read_all("runs")
        directory.close()
        assert list(kept) == ["r"]
        assert kept["r"] == kept["r"][:1] * 300_000


def test_two_daemons_never_share_a_state_directory(tmp_path: Path) -> None:
    """They would be one identity that contradicts itself."""
    first = StateDirectory(tmp_path)
    with pytest.raises(StateError, match="another daemon is running"):
        StateDirectory(tmp_path)
    first.close()
    StateDirectory(tmp_path).close()


def test_a_cloned_directory_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Machine images are cloned with all that lies on them."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.write_text("aaaa\n")
    there.write_text("bbbb\n")
    directory = StateDirectory(tmp_path / "s")
    monkeypatch.setattr(state, "MACHINE_ID_FILES", (here,))
    directory.bind_to_machine()
    directory.bind_to_machine()
    monkeypatch.setattr(state, "MACHINE_ID_FILES", (there,))
    with pytest.raises(StateError, match="made on another machine"):
        directory.bind_to_machine()
    directory.close()


def test_an_unwritable_directory_is_a_clear_error(tmp_path: Path) -> None:
    """A file stands where the folder should be: even root cannot write there."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="cannot be written") as caught:
        StateDirectory(tmp_path / "file" / "s")
    assert "name a folder" in caught.value.hint


@pytest.mark.parametrize(("number", "may_pass"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EROFS, False)])
def test_a_disk_that_is_full_is_told_from_a_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, may_pass: bool
) -> None:
    """A service manager tries again after the one, and leaves the other to a person."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(StateError, match="cannot be written") as caught:
        StateDirectory(tmp_path / "s")
    assert caught.value.may_pass == may_pass
    assert ("free some" in caught.value.hint) == may_pass


def test_a_key_cannot_leave_the_directory(tmp_path: Path) -> None:
    """Keys hold ids that came from the network."""
    directory = StateDirectory(tmp_path)
    for key in ("../x", "/etc/x", "a/../b", "", "a/"):
        with pytest.raises(ValueError, match="no key"):
            directory.write(key, b"x")
    directory.close()


def test_an_empty_value_forgets(tmp_path: Path) -> None:
    """Tombstones end some day."""
    directory = StateDirectory(tmp_path)
    directory.write("runs/r", b"x")
    directory.write("runs/r", b"")
    assert directory.read("runs/r") is None
    assert directory.read_all("runs") == {}
    directory.close()


def test_a_value_keeps_its_age_over_restarts(tmp_path: Path) -> None:
    """Thirty days of an ended run are counted by the calendar, not by how long the daemon was up."""
    directory = StateDirectory(tmp_path)
    directory.write("runs/old", b"x", age_s=3_600.0)
    directory.write("runs/new", b"y")
    directory.close()
    directory = StateDirectory(tmp_path)
    ages = {(name, value): age_s for name, value, age_s in directory.read_aged("runs")}
    directory.close()
    assert 3_600.0 <= ages["old", b"x"] < 3_700.0
    assert ages["new", b"y"] < 100.0


def test_forgetting_a_run_takes_its_books_and_leaves_its_checkpoints(tmp_path: Path) -> None:
    """Weights are the user's; what was measured on the way goes with the memory of the run."""
    directory = StateDirectory(tmp_path)
    for run in ("kept", "bare"):
        directory.write(f"runs/{run}", b"x")
        (directory.run_folder(run) / "metrics.jsonl").write_text("{}\n")
    (directory.run_folder("kept") / "checkpoints" / "step-1").mkdir(parents=True)
    for run in ("kept", "bare"):
        directory.write(f"runs/{run}", b"")
    assert directory.read_all("runs") == {}
    assert not (tmp_path / "runs" / "bare").exists()
    assert [path.name for path in (tmp_path / "runs" / "kept").iterdir()] == ["checkpoints"]
    directory.close()
