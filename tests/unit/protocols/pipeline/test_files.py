"""The files that a spec names: bound to their contents, with all that a function takes from beside the spec."""

from __future__ import annotations

from pathlib import Path

import pytest

from dflow_protocols.pipeline import Pipeline, Stage
from dflow_protocols.pipeline.files import changed, digest, named_files

FILES = {
    "config.json": "{}",
    "tokenizer/tokenizer.json": "{}",
    "words.jsonl": '{"prompt": "a", "answer": "b"}\n',
    "judge.py": "from parts import half\nfrom parts.deep import more as rest\n\ndef score(completion): ...\n",
    "parts/__init__.py": "half = 0.5\n",
    "parts/deep.py": "from . import half\nfrom ..other import x\nmore = half\n",
    "unused.py": "x = 1\n",
}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def submitted(base: Path) -> Pipeline:
    pipeline = Pipeline(
        name="mine",
        steps=2,
        models={"policy": {"init": {"config": "config.json", "tokenizer": "tokenizer/"}}},
        data={"words": {"jsonl": "words.jsonl"}},
        stages=[
            Stage("roll", "generate", "policy", config={"data": "words", "prompts": 2, "max_tokens": 2}),
            Stage("score", "reward", config={"function": "judge.py:score"}),
            Stage("adv", "advantage"),
            Stage("learn", "train", "policy", config={"optimizer": {"adamw": {"lr": 1e-3}}}),
        ],
    )
    found = {named.path: digest(named, base) for named in named_files(pipeline)}
    return pipeline.with_digests({path: text for path, text in found.items() if text is not None})


@pytest.mark.parametrize("name", [name for name in FILES if name != "unused.py"])
def test_any_byte_that_could_change_a_result_is_noticed(base: Path, name: str) -> None:
    """Two hosts with other bytes would give other results for one task, and both would count."""
    pipeline = submitted(base)
    assert list(changed(pipeline, base)) == []
    with (base / name).open("a") as file:
        file.write("\n")
    ((named, what),) = changed(pipeline, base)
    assert "differs from what the run was submitted with" in what
    assert list(changed(pipeline, base, named.path)) != []
    assert list(changed(pipeline, base, named.name)) != []
    assert list(changed(pipeline, base, "models.other.")) == []


def test_a_file_that_nothing_imports_may_change(base: Path) -> None:
    """A folder of specs is shared by several people."""
    pipeline = submitted(base)
    (base / "unused.py").write_text("x = 2\n")
    assert list(changed(pipeline, base)) == []


@pytest.mark.parametrize("name", ["words.jsonl", "judge.py", "config.json"])
def test_a_file_that_is_not_there_is_named(base: Path, name: str) -> None:
    """Such as on a host that was forgotten when the folder was copied."""
    pipeline = submitted(base)
    (base / name).unlink()
    ((named, what),) = changed(pipeline, base)
    assert named.name.startswith(name)
    assert what == "is not there"
