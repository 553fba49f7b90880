"""An engine works for a run only with the files that it was submitted with, and reads them anew for every run."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from dflow_protocols.pipeline import Pipeline
from dflow_protocols.pipeline.files import digest, named_files
from dflow_protocols.work import Failed, InitWork
from dflowd.data.folder import DiskFolder
from dflowd.engines.contract import Engine
from dflowd.engines.registry import open_engine
from tests.contracts.test_engine import tiny_spec, write_base
from tests.support.alone import Alone


@pytest.fixture(scope="module")
def engine() -> Engine:
    return open_engine("torch")


def submitted(engine: Engine, base: Path) -> Alone:
    pipeline = Pipeline.from_dict(tiny_spec("torch"))
    digests = {named.path: digest(named, DiskFolder(base)) for named in named_files(pipeline)}
    bound = pipeline.with_digests({path: text for path, text in digests.items() if text is not None})
    return Alone(engine, bound, base, base / "checkpoints")


@pytest.mark.parametrize("name", ["words.jsonl", "scores.py", "tiny.json"])
def test_a_host_with_another_file_refuses_and_names_itself_and_the_file(
    engine: Engine, tmp_path: Path, name: str
) -> None:
    """The host has to be mended; the run goes on where the file is right, so it is no error of the user."""
    runner = submitted(engine, write_base(tmp_path))
    with (tmp_path / name).open("a") as file:
        file.write("\n")
    failed = runner.perform(InitWork())
    assert isinstance(failed, Failed)
    assert failed.kind == "host"
    assert failed.error.startswith(f"host {socket.gethostname()}: ")
    assert f"`{name}" in failed.error
    assert "differs from what the run was submitted with" in failed.error


def test_an_edited_reward_counts_from_the_next_run_on(engine: Engine, tmp_path: Path) -> None:
    """One engine serves a mesh that stays while its user tries one reward after the other."""
    base = write_base(tmp_path)
    rewards = []
    for value in (0.25, 0.75):
        (base / "scores.py").write_text(f"def vowels(completion):\n    return {value}\n")
        runner = submitted(engine, base)
        seen: dict[int, dict[str, float]] = {}
        runner.log = seen.__setitem__
        runner.run(runner.init(), range(2))
        rewards.append(seen[1]["reward_mean"])
    assert rewards == [0.25, 0.75]
