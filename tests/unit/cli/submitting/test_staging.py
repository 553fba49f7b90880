"""Before a run is submitted: what is sent, to whom, and who is named as one that will not take part."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from dflow_cli.errors import EXIT_WRONG_INPUT, CliError
from dflow_cli.mesh.reach import reach
from dflow_cli.submitting import listing
from dflow_cli.submitting.listing import files_in, files_of_pipeline
from dflow_cli.submitting.staging import PIECE_BYTES, locate, spread, stage
from dflow_protocols.names import MAX_SHARD_BYTES, ShardRef, hash_shard
from dflow_protocols.pipeline import Pipeline
from dflow_protocols.wire.listing import FileRef
from tests.support.toy import toy_pipeline
from tests.unit.cli.fakedaemon import FakeDaemon

CODE, DATA, MODEL = "stages[1].config.function", "data.words.jsonl", "models.policy.path"


class Hosts:
    """What hosts say they have, by their names; a file that was sent lies on the first, one to be brought on all."""

    def __init__(self, daemon: FakeDaemon, **here: Iterable[str]) -> None:
        self.here = {name: set(ids) for name, ids in here.items()}
        self.own: dict[str, set[str]] = {name: set() for name in here}
        self.runs_code = dict.fromkeys(here, True)
        self.sent: dict[str, bytes] = {}
        daemon.answers |= {"files.locate": self._locate, "files.put": self._put, "files.bring": self._bring}

    def _locate(self, params: Mapping[str, Any]) -> dict[str, Any]:
        nodes = [
            {"node": name, "own": sorted(self.own[name]), "here": sorted(ids), "runs_code": self.runs_code[name]}
            for name, ids in self.here.items()
        ]
        return {"nodes": nodes, "missing": []}

    def _put(self, params: Mapping[str, Any]) -> dict[str, Any]:
        came = self.sent.setdefault(params["id"], b"")
        if params["offset"] == len(came):
            self.sent[params["id"]] = came = came + params["data"]
        if len(came) == params["bytes"]:
            next(iter(self.here.values())).add(params["id"])
        return {"offset": len(came)}

    def _bring(self, params: Mapping[str, Any]) -> dict[str, Any]:
        asked = {file["id"] for file in params["files"]}
        there = set().union(*self.here.values()) & asked
        for ids in self.here.values():
            ids |= there
        return {"asked": sorted(self.here), "missing": []}


Staged = Callable[..., None]


@pytest.fixture
def staged(tmp_path: Path, mesh: Path) -> Staged:
    def run(*files: FileRef) -> None:
        with reach(mesh) as client:
            stage(client, tmp_path, files)

    return run


def written(base: Path, key: str, name: str, data: bytes) -> FileRef:
    (base / name).parent.mkdir(parents=True, exist_ok=True)
    (base / name).write_bytes(data)
    return FileRef(key, name, ShardRef(hash_shard(data)[0], len(data)))


def methods(daemon: FakeDaemon) -> list[str]:
    return [method for method, _ in daemon.asked]


def test_nothing_is_sent_where_every_host_has_the_files(tmp_path: Path, daemon: FakeDaemon, staged: Staged) -> None:
    """A mesh on one machine, and hosts with one path, as it was always done."""
    data = written(tmp_path, DATA, "words.jsonl", b"x")
    Hosts(daemon, n0=[data.ref.id], n1=[data.ref.id])
    staged(data)
    assert methods(daemon) == ["files.locate"]


def test_what_no_host_has_is_sent_once_and_brought_to_the_others(
    tmp_path: Path, daemon: FakeDaemon, staged: Staged, capsys: pytest.CaptureFixture[str]
) -> None:
    """A host may be lost at any time, so two have the files before the run counts as submitted."""
    data = written(tmp_path, DATA, "words.jsonl", b"x" * (PIECE_BYTES + 10))
    known = written(tmp_path, DATA, "known.jsonl", b"known")
    empty = written(tmp_path, DATA, "empty.jsonl", b"")
    hosts = Hosts(daemon, n0=[], n1=[known.ref.id])
    staged(data, known, empty)
    assert hosts.sent == {data.ref.id: b"x" * (PIECE_BYTES + 10), empty.ref.id: b""}
    assert all(hosts.here[name] == {data.ref.id, known.ref.id, empty.ref.id} for name in ("n0", "n1"))
    assert capsys.readouterr().err.splitlines() == [
        "sending words.jsonl, empty.jsonl (1.05 MB): no host has it",
    ]


def test_hosts_that_refuse_code_are_named(
    tmp_path: Path, daemon: FakeDaemon, staged: Staged, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is known at the submit, not when tasks fail."""
    code = written(tmp_path, CODE, "judge.py", b"def score(): ...")
    hosts = Hosts(daemon, n0=[code.ref.id], n1=[code.ref.id], n2=[code.ref.id])
    hosts.own["n2"] = {code.ref.id}
    hosts.runs_code = {"n0": True, "n1": False, "n2": False}
    staged(code)
    told = capsys.readouterr().err
    assert "warning: n1 will not run judge.py, as no code that comes by wire runs there" in told
    assert "set `run_code = true` under [trust]" in told


def test_code_that_no_host_runs_is_refused(tmp_path: Path, daemon: FakeDaemon, staged: Staged) -> None:
    code = written(tmp_path, CODE, "judge.py", b"def score(): ...")
    hosts = Hosts(daemon, n0=[], n1=[])
    hosts.runs_code = {"n0": False, "n1": False}
    with pytest.raises(CliError, match=r"no host runs code that comes by wire, such as judge\.py") as refused:
        staged(code)
    assert refused.value.exit_code == EXIT_WRONG_INPUT
    assert not hosts.sent


def test_a_model_is_not_sent_with_a_run(
    tmp_path: Path, daemon: FakeDaemon, staged: Staged, capsys: pytest.CaptureFixture[str]
) -> None:
    """It may have hundreds of gigabytes; who wants it elsewhere says so."""
    model = written(tmp_path, MODEL, "base/model.safetensors", b"weights")
    hosts = Hosts(daemon, n0=[model.ref.id], n1=[])
    staged(model)
    assert f"warning: n1 will not take part before it has the model\nhint: `dflow push {tmp_path / 'base'}`" in (
        capsys.readouterr().err
    )
    hosts.here["n0"].clear()
    with pytest.raises(CliError, match=r"no host has base/model\.safetensors"):
        staged(model)
    assert not hosts.sent


def test_a_pushed_model_goes_to_all(tmp_path: Path, daemon: FakeDaemon, mesh: Path) -> None:
    base = tmp_path / "model"
    for name in ("config.json", "a/b.bin", ".cache/x"):
        written(base, MODEL, name, name.encode())
    files = files_in(base)
    assert [file.name for file in files] == ["a/b.bin", "config.json"]
    Hosts(daemon, n0=[], n1=[], n2=[])
    told: list[tuple[int, int]] = []
    with reach(mesh) as client:
        places = spread(client, base, files, locate(client, base, files), 3, lambda *each: told.append(each))
    assert [place.node for place in places] == ["n0", "n1", "n2"]
    assert told[-1] == (3 * 18, 3 * 18)


def test_what_was_lost_with_the_daemon_that_took_it_is_sent_again(
    tmp_path: Path, daemon: FakeDaemon, mesh: Path
) -> None:
    """It dies when it has the first files of a model, and before others have fetched them."""
    hosts = Hosts(daemon, n0=[], n1=[])
    files = [written(tmp_path, MODEL, name, name.encode()) for name in ("a.bin", "b.bin")]
    bring = daemon.answers["files.bring"]

    def dies_first(params: dict[str, Any]) -> dict[str, Any]:
        if "n0" in hosts.here:
            del hosts.here["n0"]
            hosts.sent.clear()
        return dict(bring(params))

    daemon.answers["files.bring"] = dies_first
    with reach(mesh) as client:
        places = spread(client, tmp_path, files, locate(client, tmp_path, files), 2)
    assert [(place.node, place.lacking(files)) for place in places] == [("n1", [])]


def test_a_folder_without_files_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(CliError, match="holds no files"):
        files_in(tmp_path)


def test_what_is_too_large_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes minutes to read."""
    monkeypatch.setattr(listing, "hash_shard", None)
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(MAX_SHARD_BYTES + 1)
    with pytest.raises(CliError, match="too large"):
        files_in(tmp_path)


def test_what_is_run_is_listed_as_code_whatever_else_names_it(tmp_path: Path) -> None:
    """Hosts that run no code from the wire go by it."""
    for name in ("model.json", "judge.py", "tokenizer/tokenizer.json"):
        written(tmp_path, DATA, name, b"{}")
    raw = toy_pipeline().to_dict() | {"engine": "torch", "emulated": {}, "data": {"words": {"jsonl": "judge.py"}}}
    raw["models"] = {"policy": {"init": {"config": "model.json", "tokenizer": "tokenizer"}}}
    raw["stages"][1]["config"]["function"] = "judge.py:score"
    files = {file.name: file.key for file in files_of_pipeline(Pipeline.from_dict(raw), tmp_path)}
    assert files["judge.py"] == CODE
