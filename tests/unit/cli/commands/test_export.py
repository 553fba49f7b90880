"""`dflow export` and `dflow logs` against daemons that answer badly: whole and right, or not at all."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from dflow_cli.app import main
from dflow_cli.mesh.meshfiles import MeshFile, write_mesh
from dflow_protocols.names import RunId, SealId, ShardId, ShardRef, SpecId, hash_shard
from dflow_protocols.versions.saved import FILE, Place, Saved, write_saved
from dflow_protocols.wire.steps import Header
from tests.unit.cli.fakedaemon import RUN, FakeDaemon
from tests.unit.cli.left import come_home

WEIGHTS = bytes(range(256)) * 5000  # more than a chunk
HEAD = b"8 bytes."


def saved() -> str:
    shard, _ = hash_shard(WEIGHTS)
    state = (("optimizer:learn", ShardRef(ShardId("cd" * 32), 4)), ("params:policy", ShardRef(shard, len(WEIGHTS))))
    header = Header(None, 6, 0, SealId("ef" * 32), state)
    places = (Place("optimizer-learn.f32", 0), Place("model.safetensors", len(HEAD)))
    return write_saved(Saved(RunId(RUN), SpecId("ab" * 32), 1, "toy", header, places))


FILES = {
    "config.json": b"{}",
    "dflow.json": saved().encode(),
    "model.safetensors": HEAD + WEIGHTS,
    "nested/more.bin": b"",
}
RUNS_OWN = ("kept-reference.f32", "lag1-policy.f32", "optimizer-learn-00001-of-00002.f32", "optimizer-learn.f32")
"""Files of a checkpoint that nothing but the run reads."""


def serve(daemon: FakeDaemon, is_listed_as_it_is: bool = False, **broken: bytes) -> None:
    """Two daemons have the checkpoint of step 6, one that of step 3; `broken`: what n1's disk gives instead, since it
    listed its files or since it wrote them."""

    def held(node: str, step: int) -> dict[str, Any]:
        return {"node": node, "node_id": node, "step": step, "folder": "/there", "version": "ab" * 32}

    def files(params: dict[str, Any]) -> dict[str, Any]:
        given = {**FILES, **dict.fromkeys(RUNS_OWN, b"1234")}
        if is_listed_as_it_is and params["node_id"] == "n1":
            given["model.safetensors"] = broken["model"]
        listed = [
            {"name": name, "bytes": len(data), "digest": blake3(data).hexdigest()} for name, data in given.items()
        ]
        return {"files": listed, "version": "ab" * 32}

    def read(params: dict[str, Any]) -> dict[str, Any]:
        data = FILES[params["name"]]
        if params["node_id"] == "n1":
            data = broken.get(params["name"].partition(".")[0], data)
        return {"data": data[params["offset"] :][:100_000]}

    rows = [held("n0", 3), held("n1", 6), held("n2", 6)]
    daemon.answers |= {
        "checkpoints": lambda _: {"checkpoints": rows, "missing": []},
        "checkpoint.files": files,
        "checkpoint.read": read,
    }


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_the_newest_checkpoint_comes_in_pieces_and_whole(mesh: Path, daemon: FakeDaemon) -> None:
    """From whoever has it; files are longer than a frame."""
    serve(daemon)
    assert main(["export", RUN, str(mesh / "out"), "--dir", str(mesh)]) == 0
    assert files_in(mesh / "out") == FILES
    assert {params["node_id"] for method, params in daemon.asked if method == "checkpoint.read"} == {"n1"}
    assert main(["export", RUN, str(mesh / "third"), "--step", "3", "--dir", str(mesh)]) == 0
    assert daemon.asked[-1][1]["node_id"] == "n0"


@pytest.mark.parametrize("is_listed_as_it_is", [False, True])
@pytest.mark.parametrize("instead", [HEAD + b"\1" + WEIGHTS[1:], b"short", b""])
def test_a_disk_that_gives_other_bytes_is_passed_over(
    mesh: Path, daemon: FakeDaemon, instead: bytes, is_listed_as_it_is: bool
) -> None:
    """Flipped, torn or empty: the next holder is asked."""
    serve(daemon, is_listed_as_it_is, model=instead)
    assert main(["export", RUN, str(mesh / "out"), "--dir", str(mesh)]) == 0
    assert files_in(mesh / "out") == FILES
    assert "n2" in {params["node_id"] for method, params in daemon.asked if method == "checkpoint.read"}


def test_nothing_is_left_of_what_cannot_be_had(
    mesh: Path, daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    """No folder that looks like a model and is none."""
    serve(daemon)
    before = {place.name for place in mesh.iterdir()}
    daemon.answers["checkpoint.read"] = lambda _: {"data": b"x" * 100_000}
    assert main(["export", RUN, str(mesh / "out"), "--dir", str(mesh)]) == 1
    assert "of n2 has other bytes than were saved" in capsys.readouterr().err
    assert {place.name for place in mesh.iterdir()} - {"client.key", "known.json"} <= before


def test_a_disk_that_is_full_is_named(
    mesh: Path, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The kernel names no file where there is no room, and "the command itself may have done its work" was not so."""
    serve(daemon)

    def full(_: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("dflow_cli.own_run.exporting._sync", full)
    assert main(["export", RUN, str(mesh / "out"), "--dir", str(mesh)]) == 2
    told = capsys.readouterr().err
    assert f"error: {mesh / 'out'}: No space left on device" in told
    assert "free some room there" in told
    assert not [place for place in mesh.iterdir() if "out" in place.name]


def test_a_file_that_cannot_be_read_is_not_told_as_a_place_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Daemons that another user started have ended, and only that user may read what they left."""
    there = tmp_path / "runs" / RUN / "checkpoint"
    write_mesh(tmp_path, MeshFile(False, (), is_of_run=True))
    come_home(tmp_path, "done", RunId(RUN))
    there.mkdir()
    (there / FILE).write_text(json.dumps({"step": 1, "version": "ab" * 32}))

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(there / FILE))

    monkeypatch.setattr("dflow_cli.kept.leftovers.blake3", refuse)
    assert main(["export", RUN, str(tmp_path / "out"), "--dir", str(tmp_path)]) != 0
    told = capsys.readouterr().err
    assert f"error: {there / FILE}: cannot be read: Permission denied" in told
    assert "can be written" not in told


@pytest.mark.parametrize("name", ["../out.py", "/tmp/of_another.py"])
def test_a_daemon_cannot_write_outside_of_the_folder(mesh: Path, daemon: FakeDaemon, name: str) -> None:
    """A client trusts a mesh with its runs, not with its disk."""
    serve(daemon)
    daemon.answers["checkpoint.files"] = lambda _: {
        "files": [{"name": name, "bytes": 1, "digest": ""}],
        "version": "ab" * 32,
    }
    assert main(["export", RUN, str(mesh / "out"), "--dir", str(mesh)]) == 2
    assert not (mesh / "out").exists()
    assert not (mesh / "out.py").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "what"),
    [
        (["--step", "4"], 2, "has no checkpoint of step 4"),
        ([], 1, "of a run that has ended none was written"),
    ],
)
def test_what_there_is_is_told(
    mesh: Path, daemon: FakeDaemon, arguments: list[str], code: int, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the steps that can be had, or how to have some."""
    serve(daemon)
    if not arguments:
        daemon.answers["checkpoints"] = lambda _: {"checkpoints": [], "missing": []}
    assert main(["export", RUN, str(mesh / "out"), *arguments, "--dir", str(mesh)]) == code
    told = capsys.readouterr().err
    assert what in told
    assert "\nhint: " in told


def test_what_has_no_model_is_not_rounded(mesh: Path, daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is left of it; a dtype that is none is refused before any daemon is asked."""
    serve(daemon)
    assert main(["export", RUN, str(mesh / "out"), "--dtype", "bfloat16", "--dir", str(mesh)]) == 1
    assert "is no safetensors file" in capsys.readouterr().err
    assert not (mesh / "out").exists()
    daemon.asked.clear()
    assert main(["export", RUN, str(mesh / "out"), "--dtype", "int8", "--dir", str(mesh)]) == 2
    assert not daemon.asked


def test_a_folder_that_is_there_is_not_touched(mesh: Path, daemon: FakeDaemon) -> None:
    """An empty one may be filled."""
    serve(daemon)
    place = mesh / "out"
    place.mkdir()
    assert main(["export", RUN, str(place), "--dir", str(mesh)]) == 0
    assert main(["export", RUN, str(place), "--dir", str(mesh)]) == 2
    assert files_in(place) == FILES


def test_reports_are_lines_with_names_of_nodes(
    mesh: Path, daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    """A node's id of 32 digits says nothing to a person."""
    event = {"time_s": 0.5, "node": "n1", "node_id": "1", "level": "warning", "name": "membership.died", "number": 1}
    event["fields"] = {"node": "0" * 32, "why": "no answer"}
    daemon.answers["events"] = lambda _: {
        "events": [event, event | {"node": "n2"}],
        "heard": {},
        "names": {str(number) * 32: f"n{number}" for number in range(4)},
        "missing": ["n3"],
    }
    assert main(["logs", "--node", "n1", "--since", "10m", "--dir", str(mesh)]) == 0
    said = capsys.readouterr()
    assert said.out == '1970-01-01T00:00:00.500Z n1 warning membership.died node=n0 why="no answer"\n'
    assert said.err == "no answer from: n3\n"
    assert main(["logs", "--node", "n9", "--dir", str(mesh)]) == 2
    assert "no daemon `n9` is known here" in capsys.readouterr().err
    assert main(["logs", "--since", "soon", "--dir", str(mesh)]) == 2


def test_merging_what_is_whole_already_is_told(
    mesh: Path, daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is left behind that looks merged."""
    serve(daemon)
    assert main(["export", RUN, str(mesh / "out"), "--merge", "--dir", str(mesh)]) == 2
    assert "the checkpoint holds no adapters" in capsys.readouterr().err
    assert not (mesh / "out").exists()


@pytest.mark.parametrize(("rows", "words"), [([], ()), ([3], ("--step", "6"))])
def test_a_checkpoint_of_daemons_that_are_down_says_which_to_start(
    mesh: Path, daemon: FakeDaemon, tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: list[int], words: Any
) -> None:
    """By name, and by the command that does it: on this machine or on theirs."""
    held = [{"node": "n0", "node_id": "n0", "step": step, "folder": "/there", "version": "ab" * 32} for step in rows]
    away = [{"node": "n1", "step": 6}, {"node": "east", "step": 6}, {"node": "n2", "step": 5}]
    (mesh / "n1").mkdir()
    (mesh / "n1/config.toml").touch()
    daemon.answers["checkpoints"] = lambda _: {"checkpoints": held, "away": away, "missing": []}
    assert main(["export", RUN, str(tmp_path / "out"), "--dir", str(mesh), *words]) == 1
    what, hint = capsys.readouterr().err.splitlines()
    assert what.endswith("the checkpoint of step 6 lies on n1 and east, which are down")
    assert f"`dflow down --dir {mesh}`, then `dflow up --nodes" in hint
    assert "`systemctl start dflowd` on east" in hint


def test_a_daemon_that_was_started_alone_leaves_no_doubt_where_the_checkpoint_is(
    mesh: Path, daemon: FakeDaemon, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has not met the others in this life; their disks lie beside it."""
    monkeypatch.setattr("dflow_cli.kept.left_out.lying_in", lambda folder, run: [{"node": "n1", "step": 3}])
    daemon.answers["checkpoints"] = lambda _: {"checkpoints": [], "away": [], "missing": []}
    assert main(["export", RUN, str(tmp_path / "out"), "--dir", str(mesh)]) == 1
    assert "the checkpoint of step 3 lies on n1, which is down" in capsys.readouterr().err


def test_a_newer_checkpoint_of_a_daemon_that_is_down_is_told_with_the_older_one(
    mesh: Path, daemon: FakeDaemon, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is exported must not be taken for the newest."""
    serve(daemon)
    whole = daemon.answers["checkpoints"]
    daemon.answers["checkpoints"] = lambda params: {**whole(params), "away": [{"node": "east", "step": 9}]}
    assert main(["export", RUN, str(tmp_path / "out"), "--dir", str(mesh)]) == 0
    said = capsys.readouterr().err
    assert "the checkpoint of step 9 lies on east, which is down: this one is of step 6" in said
