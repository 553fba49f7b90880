"""The files that a spec names: bound to their contents, with all that a function takes from beside the spec."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import dflow_cli.spec.diskfolder
import dflowd.data.folder
from dflow_protocols.pipeline import Pipeline, Stage
from dflow_protocols.pipeline.entries.parts import Folder
from dflow_protocols.pipeline.files import changed, digest, files_of, laid, named_files, with_own_code

FILES = {
    "config.json": "{}",
    "tokenizer/tokenizer.json": "{}",
    "words.jsonl": '{"prompt": "a", "answer": "b"}\n',
    "more/train-0.csv": "prompt,answer\na,b\n",
    "more/train-1.csv": "prompt,answer\nc,d\n",
    "judge.py": "from parts import half\nfrom parts.deep import more as rest\n\ndef score(completion): ...\n",
    "parts/__init__.py": "half = 0.5\n",
    "parts/deep.py": "from . import half\nfrom ..other import x\nmore = half\n",
    "unused.py": "x = 1\n",
}


class Written(dict[str, str]):
    """A folder that lies nowhere but here: its files' texts by name."""

    def names(self, name: str) -> list[str] | None:
        inside = "" if name == "." else f"{name.rstrip('/')}/"
        return [file.removeprefix(inside) for file in self if file.startswith(inside)] or None

    def read(self, name: str) -> bytes | None:
        text = self.get(name.replace("//", "/"))
        return None if text is None else text.encode()


@pytest.fixture
def folder() -> Written:
    return Written(FILES)


def submitted(folder: Folder) -> Pipeline:
    pipeline = Pipeline(
        name="mine",
        steps=2,
        models={"policy": {"init": {"config": "config.json", "tokenizer": "tokenizer/"}}},
        data={"words": {"jsonl": "words.jsonl"}, "more": {"csv": "more/train-*"}},
        stages=[
            Stage("roll", "generate", "policy", config={"data": "words", "prompts": 2, "max_tokens": 2}),
            Stage("score", "reward", config={"function": "judge.py:score"}),
            Stage("adv", "advantage"),
            Stage("learn", "train", "policy", config={"optimizer": {"adamw": {"lr": 1e-3}}}),
        ],
    )
    found = {named.path: digest(named, folder) for named in named_files(pipeline)}
    return pipeline.with_digests({path: text for path, text in found.items() if text is not None})


@pytest.mark.parametrize("name", [name for name in FILES if name != "unused.py"])
def test_any_byte_that_could_change_a_result_is_noticed(folder: Written, name: str) -> None:
    """Two hosts with other bytes would give other results for one task, and both would count."""
    pipeline = submitted(folder)
    assert list(changed(pipeline, folder)) == []
    folder[name] += "\n"
    ((named, what),) = changed(pipeline, folder)
    assert "differs from what the run was submitted with" in what
    assert list(changed(pipeline, folder, named.path)) != []
    assert list(changed(pipeline, folder, named.name)) != []
    assert list(changed(pipeline, folder, "models.other.")) == []


def test_a_file_that_nothing_imports_may_change(folder: Written) -> None:
    """A folder of specs is shared by several people."""
    pipeline = submitted(folder)
    folder["unused.py"] = "x = 2\n"
    assert list(changed(pipeline, folder)) == []


@pytest.mark.parametrize("name", ["words.jsonl", "judge.py", "config.json", "tokenizer/tokenizer.json"])
def test_a_file_that_is_not_there_is_named(folder: Written, name: str) -> None:
    """Such as on a host that was forgotten when the folder was copied."""
    pipeline = submitted(folder)
    del folder[name]
    ((named, what),) = changed(pipeline, folder)
    assert name.startswith(named.name.partition(":")[0])
    assert what == "is not there"


@pytest.mark.parametrize("kind", [dflow_cli.spec.diskfolder.DiskFolder, dflowd.data.folder.DiskFolder])
def test_client_and_engine_read_their_disks_alike(
    kind: Callable[[Path], Folder], folder: Written, tmp_path: Path
) -> None:
    """Each has a reader of its own; a digest that one makes and the other checks has to be one of the same bytes."""
    written = folder | {"tokenizer/deep/vocab.txt": "a", "tokenizer/deep.txt": "", "tokenizer/.hidden": "x"}
    for name, text in written.items():
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(text)
    disk = kind(tmp_path)
    assert submitted(disk).digests == submitted(Written(written)).digests
    assert disk.names("tokenizer/deep") == ["vocab.txt"]
    assert disk.names("nowhere") is disk.names("judge.py") is None
    assert disk.read("nowhere") is disk.read("tokenizer") is disk.read("judge.py/x") is None
    assert bytes(disk.read(str(tmp_path / "unused.py")) or b"") == b"x = 1\n"


def test_each_name_stands_for_the_files_that_its_digest_covers(folder: Written) -> None:
    """What is sent to another host is what an engine compares there."""
    folder["tokenizer/.cache"] = "not part of it"
    found = {named.path: files_of(named, folder) for named in named_files(submitted(folder))}
    assert found == {
        "models.policy.init.config": ["config.json"],
        "models.policy.init.tokenizer": ["tokenizer/tokenizer.json"],
        "data.words.jsonl": ["words.jsonl"],
        "data.more.csv": ["more/train-0.csv", "more/train-1.csv"],
        "stages[1].config.function": ["judge.py", "parts/__init__.py", "parts/deep.py"],
    }


def test_stages_with_code_beside_the_spec_are_told(folder: Written) -> None:
    """Those that a host refuses which runs no code that came by wire."""
    assert with_own_code(submitted(folder)) == ("score",)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("words.jsonl", "words.jsonl"),
        ("./a//b/../words.jsonl", "a/words.jsonl"),
        ("/models/qwen/config.json", ".elsewhere/root/models/qwen/config.json"),
        ("/models/../../etc/x", ".elsewhere/root/etc/x"),
        ("../data/x", ".elsewhere/up1/data/x"),
        ("a/../../../x", ".elsewhere/up2/x"),
    ],
)
def test_a_file_outside_of_the_spec_lies_inside_of_the_folder_that_stands_for_it(name: str, place: str) -> None:
    """Nothing that a peer names is written anywhere else."""
    assert laid(name) == place


def test_two_names_outside_never_share_a_place() -> None:
    assert len({laid(name) for name in ("../up2/x", "../../x", "/up2/x", "../root/up2/x")}) == 4
