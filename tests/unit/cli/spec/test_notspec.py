"""What is given in place of a pipeline: one error that says what it is, and what to give instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from dflow_cli.app import main
from dflow_cli.spec.specfile import SpecFileError, load

FILES: dict[str, str | bytes] = {
    "task/pipeline.yaml": "name: x",
    "task/model.json": "{}",
    "qwen/config.json": '{"architectures": ["LlamaForCausalLM"], "model_type": "llama"}',
    "qwen/recipe.yaml": "a: 1",
    "several/a.yaml": "",
    "several/b.yml": "",
    "one/a.yaml": "",
    "nothing/a.txt": "",
    "words.jsonl": '{"prompt": "a"}\n{"prompt": "b"}\n',
    "rows.parquet": b"PAR1\xff\x00",
    "table.csv": "prompt,answer\n1 + 1,2\n",
    "table.arrow": b"ARROW1\0\0\xff",
    "model.safetensors": b"\x08\x00\xff",
    "tokenizer.json": '{"version": "1.0", "added_tokens": []}',
    "old.yaml": "plan_version: 1\nname: x\nloss: grpo\n",
    "noise.yaml": b"\xff\x00\xfe",
    "empty.yaml": "# nothing yet\n",
    "rewards.py": "def score(completion):\n    return 1.0\n",
}
FOLDER = "this is a folder, and a pipeline is a file"
MODEL = "a model's weights are named in one: `models: {policy: {path: qwen}}`; `dflow init` writes one to begin with"
ERRORS = [
    ("task", f"error: task: {FOLDER}", "give the one in it: `task/pipeline.yaml`"),
    ("one", f"error: one: {FOLDER}", "give the one in it: `one/a.yaml`"),
    ("several", f"error: several: {FOLDER}", "give one of those in it: `several/a.yaml`, `several/b.yml`"),
    ("nothing", f"error: nothing: {FOLDER}", "give the path of a spec; `dflow init` writes one to begin with"),
    ("qwen", "error: qwen: this is a folder with a model, and no pipeline", MODEL),
    (
        "qwen/config.json",
        "error: qwen/config.json: this is a model's configuration, and no pipeline",
        "it is named in one: `models: {policy: {init: {config: config.json}}}`, or, with its weights, its folder: "
        "`{path: qwen}`; `dflow init` writes one to begin with",
    ),
    (
        "words.jsonl",
        "error: words.jsonl: this is data, and no pipeline",
        "it is named in one: `data: {mine: {jsonl: words.jsonl}}`; `dflow init` writes one to begin with",
    ),
    (
        "rows.parquet",
        "error: rows.parquet: this is data, and no pipeline",
        "it is named in one: `data: {mine: {parquet: rows.parquet}}`; `dflow init` writes one to begin with",
    ),
    (
        "table.csv",
        "error: table.csv: this is data, and no pipeline",
        "it is named in one: `data: {mine: {csv: table.csv}}`; `dflow init` writes one to begin with",
    ),
    (
        "table.arrow",
        "error: table.arrow: this is data, and no pipeline",
        "it is named in one: `data: {mine: {arrow: table.arrow}}`; `dflow init` writes one to begin with",
    ),
    ("model.safetensors", "error: model.safetensors: this is no text", "a spec is YAML in UTF-8"),
    (
        "tokenizer.json",
        "error: tokenizer.json: this is no pipeline: none of its keys is a key of one",
        "a pipeline has `name`, `steps`, `models` and `stages`; `dflow init` writes one to begin with",
    ),
    (
        "old.yaml",
        "error: old.yaml:1: `plan_version` is 1, but this dflowd plans by version 2",
        "write `plan_version: 2`; its weights are others",
    ),
    ("noise.yaml", "error: noise.yaml: this is no text", "a spec is YAML in UTF-8"),
    ("empty.yaml", "error: empty.yaml: the file is empty", "start with `name: my_pipeline`"),
    (
        "rewards.py",
        "error: rewards.py: it defines no `pipeline`",
        "end it with `pipeline = Pipeline(...)`; code for a stage is named in a pipeline, as `rewards.py:NAME`",
    ),
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, held in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(held if isinstance(held, bytes) else held.encode())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("given", "error", "hint"), ERRORS)
def test_what_is_no_pipeline_is_told_once_for_what_it_is(
    given: str, error: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Twenty keys that no pipeline has, each with the one that it resembles, say nothing of what went wrong."""
    assert main(["validate", given]) == 2
    assert capsys.readouterr().err == f"{error}\nhint: {hint}\n"


@pytest.mark.parametrize("command", ["run", "submit", "plan"])
def test_every_command_that_takes_a_pipeline_says_the_same(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "qwen"]) == 2
    assert capsys.readouterr().err == f"error: qwen: this is a folder with a model, and no pipeline\nhint: {MODEL}\n"


@pytest.mark.parametrize("given", ["task", "qwen", "qwen/config.json", "words.jsonl"])
def test_so_is_what_is_no_overlay(given: str) -> None:
    """It is laid over a pipeline, key by key, so it would break that in as many places."""
    with pytest.raises(SpecFileError) as caught:
        load(Path("task/pipeline.yaml"), [Path(given)])
    assert [problem.where for problem in caught.value.problems] == [given]


def test_a_misspelt_key_of_an_overlay_is_still_told_with_its_line(folder: Path) -> None:
    """An overlay of one line is no other thing for its one mistake."""
    (folder / "over.yaml").write_text("stepps: 3\n")
    with pytest.raises(SpecFileError) as caught:
        load(Path("task/pipeline.yaml"), [Path("over.yaml")])
    assert ("over.yaml:1", "did you mean `steps`?") in [(each.where, each.hint) for each in caught.value.problems]
