"""What a daemon finds of checkpoints on its disk, and what it removes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dflow_protocols.names import RunId, SealId, ShardId, ShardRef, SpecId, VersionId
from dflow_protocols.versions.saved import FILE, Place, Saved, write_saved
from dflow_protocols.wire.steps import Header
from dflowd.state.checkpoints import discard, find, folder_of

RUN = RunId("a" * 32)


def saved(state: Path, step: int, run: RunId = RUN) -> Saved:
    """A checkpoint of one small shard, on the disk."""
    entry = ("params:policy", ShardRef(ShardId(f"{step:064x}"), 4))
    header = Header(VersionId("b" * 64), step, 8 * step, SealId("c" * 64), (entry,), (("held@1/correct", 2.5),))
    made = Saved(run, SpecId("d" * 64), 1, "toy", header, (Place("model.safetensors", 16),))
    folder = folder_of(state, RUN) / f"step-{step:06d}"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(bytes(20))
    (folder / FILE).write_text(write_saved(made))
    return made


def change(old: str, new: str) -> Callable[[Path], object]:
    return lambda folder: (folder / FILE).write_text((folder / FILE).read_text().replace(old, new))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "is torn": lambda folder: (folder / FILE).write_text((folder / FILE).read_text()[:100]),
    "its digest is another": change("2.5", "3.5"),
    "is of format 7": change('"format": 1', '"format": 7'),
    "model.safetensors is missing": lambda folder: (folder / "model.safetensors").unlink(),
    "it is of step 2": lambda folder: folder.rename(folder.with_name("step-000009")),
    "No such file": lambda folder: (folder / FILE).unlink(),
}


def test_whole_checkpoints_are_found_and_half_written_ones_are_swept(tmp_path: Path) -> None:
    """A power cut in the middle of a save leaves a folder that nobody will ever finish."""
    there = [saved(tmp_path, 2), saved(tmp_path, 10)]
    draft = folder_of(tmp_path, RUN) / ".step-000012.77"
    draft.mkdir()
    assert find(tmp_path) == (there, [])
    assert not draft.exists()
    assert find(tmp_path / "nothing") == ([], [])


@pytest.mark.parametrize("why", DAMAGES)
def test_a_damaged_checkpoint_is_reported_by_name_and_the_others_are_found(tmp_path: Path, why: str) -> None:
    """One bad folder must neither stop the daemon nor be taken for a good one."""
    good, _ = saved(tmp_path, 1), saved(tmp_path, 2)
    DAMAGES[why](folder_of(tmp_path, RUN) / "step-000002")
    found, refused = find(tmp_path)
    assert found == [good]
    (report,) = refused
    assert report.name == "checkpoint.refused"
    assert why in report.fields["error"]
    assert "step-0000" in report.fields["folder"]


def test_a_checkpoint_that_was_put_into_another_runs_folder_is_refused(tmp_path: Path) -> None:
    """It is whole, and its weights are none of that run's."""
    saved(tmp_path, 3, RunId("e" * 32))
    found, refused = find(tmp_path)
    assert found == []
    assert "it is of run eeee" in refused[0].fields["error"]


def test_only_the_version_that_was_named_is_discarded(tmp_path: Path) -> None:
    """The run may have passed the step again, on another branch, before the disk came to it."""
    old, other = saved(tmp_path, 2), saved(tmp_path, 4)
    discard(tmp_path, RUN, 2, other.header.id)
    assert find(tmp_path)[0] == [old, other]
    discard(tmp_path, RUN, 2, old.header.id)
    discard(tmp_path, RUN, 7, old.header.id)
    assert find(tmp_path)[0] == [other]
    assert [path.name for path in folder_of(tmp_path, RUN).iterdir()] == ["step-000004"]
