"""Spec files: every mistake with its file and line, whichever file or option it was made in."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path

import pytest

from dflow_cli.app import main
from dflow_cli.spec.specfile import Loaded, SpecFileError, load
from dflow_protocols.names import is_what
from tests.support.repository import EXAMPLES

SPEC = """\
name: arithmetic
params: {warmup: 2, grpo: 4}
steps: warmup + grpo
models:
  policy: {init: {config: model.json, tokenizer: tokenizer/}}
data:
  sums:
    jsonl: sums.jsonl
    held_out: {share: 0.1, count: 50}
stages:
  - id: roll
    op: generate
    model: policy
    config: {data: sums, prompts: 8, max_tokens: 4}
  - {id: score, op: reward, config: {function: "judge.py:score"}}
  - {id: advantage, op: advantage}
  - id: learn
    op: train
    model: policy
    config:
      optimizer: {adamw: {lr: 1e-3}}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A spec with all the files that it names; the working directory."""
    (tmp_path / "arithmetic.yaml").write_text(SPEC)
    shutil.copytree(EXAMPLES / "spell_tokenizer", tmp_path / "tokenizer")
    shutil.copy(EXAMPLES / "spell_llama.json", tmp_path / "model.json")
    (tmp_path / "sums.jsonl").write_text('{"prompt": "1 + 1", "answer": "2"}\n')
    (tmp_path / "judge.py").write_text("def score(completion, answer, **rest):\n    return 1.0\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load_spec(*overlays: str, sets: tuple[str, ...] = (), spec: str = "arithmetic.yaml") -> Loaded:
    return load(Path(spec), [Path(name) for name in overlays], list(sets))


def mistakes(*overlays: str, sets: tuple[str, ...] = (), spec: str = "arithmetic.yaml") -> list[str]:
    """What the user would read."""
    with pytest.raises(SpecFileError) as caught:
        load_spec(*overlays, sets=sets, spec=spec)
    return [f"error: {p.where}: {p.what}\nhint: {p.hint}" for p in caught.value.problems]


def edit(folder: Path, old: str, new: str) -> None:
    assert SPEC.count(old) == 1
    (folder / "arithmetic.yaml").write_text(SPEC.replace(old, new))


def test_a_spec_is_ready_to_submit(folder: Path) -> None:
    loaded = load_spec()
    assert loaded.base == folder
    assert loaded.pipeline.steps == 6
    assert all(is_what(digest) for digest in loaded.pipeline.digests.values())
    assert sorted(loaded.pipeline.digests) == [
        "data.sums.jsonl",
        "models.policy.init.config",
        "models.policy.init.tokenizer",
        "stages[1].config.function",
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            '  - {id: score, op: reward, config: {function: "judge.py:score"}}\n',
            "",
            "error: arithmetic.yaml:15: stage `advantage` reads `reward`, which no stage before it writes\n"
            "hint: add a `reward` stage before it",
        ),
        (
            "op: generate",
            "op: generat",
            "error: arithmetic.yaml:12: stage `roll`: there is no operator `generat`\n"
            "hint: did you mean `generate`? (or give `module:function`, or `file.py:function` beside the spec)",
        ),
        (
            "{adamw: {lr: 1e-3}}",
            "{adamw: {lr: 1e-3, beta: [0, 0]}}",
            "error: arithmetic.yaml:21: stage `learn`: `beta` is no key of `adamw`\nhint: did you mean `betas`?",
        ),
        (
            "    model: policy\n    config: {data: sums",
            "    config: {data: sums",
            "error: arithmetic.yaml:11: stage `roll`: `generate` needs a `model`\nhint: known models: policy",
        ),
        (
            "{id: advantage, op: advantage}",
            "{id: advantage, op: advantage, after: [learn]}",
            "error: arithmetic.yaml:16: stages wait for each other: `advantage` -> `learn` -> `advantage`\n"
            "hint: take one of these out of `reads` or `after`",
        ),
        (
            "config: model.json",
            "config: modle.json",
            "error: arithmetic.yaml:5: there is no file `modle.json`\nhint: did you mean `model.json`?",
        ),
        (
            "{init: {config: model.json, tokenizer: tokenizer/}}",
            "{path: /nowhere/at/all}",
            "error: arithmetic.yaml:5: there is no folder `/nowhere/at/all`\n"
            "hint: paths start from the spec's folder, {folder}",
        ),
        (
            "{init: {config: model.json, tokenizer: tokenizer/}}",
            "{path: Qwen/Qwen2.5-0.5B}",
            "error: arithmetic.yaml:5: there is no folder `Qwen/Qwen2.5-0.5B`\n"
            "hint: paths start from the spec's folder, {folder}; a model of a hub is fetched first: "
            "`hf download Qwen/Qwen2.5-0.5B --local-dir {folder}/Qwen/Qwen2.5-0.5B`",
        ),
        (
            "judge.py:score",
            "judge.py:scor",
            "error: arithmetic.yaml:15: `judge.py` has no `scor`\nhint: did you mean `score`?",
        ),
        (
            "judge.py:score",
            "no_such_module_anywhere:score",
            "error: arithmetic.yaml:15: there is no module `no_such_module_anywhere`\n"
            "hint: put it into the spec's folder, {folder}, or install it",
        ),
        (
            "steps: warmup + grpo",
            "steps: warmup + grpo\nsteps: 3",
            "error: arithmetic.yaml:1: `steps` is written twice\nhint: keep one of them",
        ),
        (
            "  policy: {init: {config: model.json, tokenizer: tokenizer/}}",
            "  policy: {init: {config: model.json",
            "error: arithmetic.yaml:6: this is not YAML: expected ',' or '}', but got ':'\n"
            "hint: look for a missing `:`, `,` or bracket, or a wrong indentation, there or just above",
        ),
    ],
)
def test_a_mistake_is_told_with_its_line_and_its_remedy(folder: Path, old: str, new: str, message: str) -> None:
    """One line what and where, one line what to do; the texts are part of the product."""
    edit(folder, old, new)
    assert mistakes() == [message.replace("{folder}", str(folder))]


def test_all_mistakes_are_told_in_the_order_of_the_file(folder: Path) -> None:
    edit(folder, "op: advantage}", "op: advantage, config: {method: pop}}")
    text = (folder / "arithmetic.yaml").read_text()
    (folder / "arithmetic.yaml").write_text(
        text.replace("steps: warmup", "lag: -1\nsteps: warmpu").replace("lr:", "lt:")
    )
    assert [line.split(": ")[1] for line in mistakes()] == [f"arithmetic.yaml:{line}" for line in (3, 4, 17, 22, 22)]


def test_a_warning_is_told_with_its_line_and_stops_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 0: scripts go on, people read stderr, and `--json` has it beside the answer."""
    edit(folder, "prompts: 8, max_tokens: 4", "prompts: 1, max_tokens: 4, top_p: 0.9")
    assert main(["validate", "arithmetic.yaml", "--json"]) == 0
    out, err = capsys.readouterr()
    (told,) = [warning for warning in json.loads(out)["warnings"] if "top_p" in warning["what"]]
    assert told["where"] == "arithmetic.yaml:14"
    assert f"warning: arithmetic.yaml:14: {told['what']}\nhint: {told['hint']}\n" in err


def test_stages_that_the_spec_stands_for_move_no_line(folder: Path) -> None:
    """A rollout in segments becomes several stages, and what follows it is told where it was written all the same."""
    written = SPEC.replace("steps: warmup", "async: {max_staleness: 1, partial: true}\nsteps: warmup")
    (folder / "arithmetic.yaml").write_text(
        written.replace("op: advantage", "op: advantage, rounds: {until: 2, max: 2}")
    )
    assert [warning.where for warning in load_spec().warnings if "rounds" in warning.what] == ["arithmetic.yaml:17"]
    (folder / "judge.py").unlink()
    assert mistakes()[0].startswith("error: arithmetic.yaml:16: ")


@pytest.mark.parametrize("command", ["plan", "submit"])
def test_warnings_are_told_wherever_a_spec_is_read(
    folder: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Few people validate what they are about to run."""
    edit(folder, "max_tokens: 4", "max_tokens: 4, top_p: 0.9")
    main([command, "arithmetic.yaml"])
    assert "warning: arithmetic.yaml:14: stage `roll`: `top_p`" in capsys.readouterr().err


def test_a_command_that_stops_at_the_first_mistake_counts_the_others(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(folder, "prompts: 8, max_tokens: 4", "promts: 8, max_tokns: 4")
    assert main(["plan", "arithmetic.yaml"]) == 2
    assert "3 more, told by `dflow validate arithmetic.yaml`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("def score(completion):\n    'Always.'\n    return 1.0\n", "gives one number whatever was said"),
        ("def score(answer, entry):\n    return len(answer)\n", "does not ask for `completion`"),
    ],
)
def test_a_reward_that_cannot_tell_completions_apart_is_told(folder: Path, code: str, says: str) -> None:
    """Every group would be flat: a run of any length that changes nothing."""
    (folder / "judge.py").write_text(code)
    told = [warning.what for warning in load_spec().warnings]
    assert any(what.startswith(f"judge.py:1: `score` {says}") for what in told)


ENVIRONMENT = "environment: {class: 'talk.py:Talk', turns: 2, args: {most: 3}}"
TALK = """
class Talk:
    def __init__(self, most=1): ...
    def reset(self, entry): ...
    def step(self, messages): ...
"""


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (TALK, ""),
        ("from elsewhere import Talk\n", ""),
        ("def Talk(): ...\n", "talk.py: `Talk` is no class"),
        (TALK.replace("step", "stop"), "talk.py:2: `Talk` has no `step`"),
        (TALK.replace("most=1", "least=1"), "talk.py:2: `Talk` does not take `most`, which `args` hold"),
        ("x = 1\n", "`talk.py` has no `Talk`"),
    ],
)
def test_an_environment_that_cannot_answer_is_told_before_the_run(folder: Path, code: str, says: str) -> None:
    """Its class is not imported for that: the text of the file shows it."""
    edit(folder, "prompts: 8, max_tokens: 4", f"prompts: 8, max_tokens: 4, {ENVIRONMENT}")
    (folder / "talk.py").write_text(code)
    if says:
        assert any(says in mistake for mistake in mistakes())
    else:
        assert "stages[0].config.environment.class" in load_spec().pipeline.digests


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (
            "def score(completion):\n    float(len(completion))\n",
            "judge.py:1: `score` has no `return`, and a number is due",
        ),
        ("def score(completion):\n    yield 1.0\n", "judge.py:1: `score` is a generator (it has `yield`)"),
        ("def score(completion):\n    return [1.0]\n", "judge.py:2: `score` gives a list where a number is due"),
        (
            "def score(completion):\n    return f'{completion}'\n",
            "judge.py:2: `score` gives a text where a number is due",
        ),
        (
            "def score(completions):\n    return 1.0\n",
            "judge.py:2: `score` gives a number where a list of",
        ),
        ("def score(completions):\n    return (1.0 for _ in completions)\n", "judge.py:2: `score` gives a generator"),
        ("score = 3\n", "judge.py:1: `score` is a number, no function"),
        ("class score:\n    def __init__(self, completion): ...\n", "judge.py:1: `score` is a class, no function"),
    ],
)
def test_a_reward_that_can_give_no_number_is_told_before_the_run(folder: Path, code: str, says: str) -> None:
    """It would cost an engine's start, a rollout and three tries, and the text of the file shows it."""
    (folder / "judge.py").write_text(code)
    assert any(says in mistake for mistake in mistakes())


def test_a_package_that_is_not_installed_is_warned_of_with_its_line(folder: Path) -> None:
    """The daemons may have it; where they have not, the run would end at its first reward."""
    code = "import json\nimport sums_of_mine\n\ntry:\n    import fastjudge\nexcept ImportError:\n    fastjudge = None\n"
    (folder / "sums_of_mine.py").write_text("")
    (folder / "judge.py").write_text(
        code + "from nojudge.deep import x\n\ndef score(completion):\n    return x(completion)\n"
    )
    told = [warning.what for warning in load_spec().warnings if "judge.py" in warning.what]
    assert told == ["judge.py:8: it imports `nojudge`, which is not installed here"]


@pytest.mark.parametrize(
    "code",
    [
        "def score(completion):\n    if not completion:\n        return None\n    return len(completion)\n",
        "def score(completion):\n    def inner():\n        yield 1\n    return sum(inner())\n",
        "def score(completions):\n    return [len(completion) for completion in completions]\n",
        "score = lambda completion: 1.0\n",
        "class score(float):\n    def __new__(cls, completion): return float.__new__(cls, len(completion))\n",
        "score = 3\ndef score(completion):\n    return len(completion)\n",
        "import os\n\ndef score(completion):\n    os.abort()\n",
        "def score(completion):\n    while True:\n        pass\n",
    ],
)
def test_a_reward_that_may_give_a_number_is_not_refused(folder: Path, code: str) -> None:
    """What the text does not show is for the engine to tell."""
    (folder / "judge.py").write_text(code)
    load_spec()


@pytest.mark.parametrize(
    "written", ["2020-13-45", '!!int "abc"', "!!float x", "!!timestamp x", "!!bool maybe", "9" * 5000]
)
def test_a_value_that_yaml_cannot_read_is_told_with_its_line(folder: Path, written: str) -> None:
    """The library lets its own ValueError, KeyError or AttributeError out."""
    edit(folder, "name: arithmetic\n", f"name: {written}\n")
    (told,) = mistakes()
    assert told.startswith("error: arithmetic.yaml:1: `")
    assert "put it in quotes" in told


def test_a_character_that_no_yaml_may_hold_is_told(folder: Path) -> None:
    """The library raises it before it reads a line."""
    (folder / "arithmetic.yaml").write_text(SPEC + "\0")
    assert "this is not YAML: unacceptable character #x0000" in mistakes()[0]


def test_a_python_spec_that_exits_is_no_valid_spec(folder: Path) -> None:
    """It took the command with it, with exit code 0."""
    (folder / "arithmetic.py").write_text("import sys\n\nsys.exit(3)\n")
    assert mistakes(spec="arithmetic.py")[0].startswith("error: arithmetic.py:3: SystemExit: 3")
    assert main(["validate", "arithmetic.py"]) == 2


def test_a_spec_whose_aliases_stand_for_a_billion_values_is_refused_at_once(folder: Path) -> None:
    """Written out it would fill the memory."""
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"{name}: &{name} [{', '.join(['*' + before] * 10)}]" for before, name in pairwise("abcdefghi")]
    (folder / "arithmetic.yaml").write_text("\n".join(lines))
    assert "more than 100000 values" in mistakes()[0]


def test_overlays_lay_key_over_key_and_stage_over_stage(folder: Path) -> None:
    """A variant of a spec says only what differs."""
    (folder / "small.yaml").write_text("params: {grpo: 1}\nstages: [{id: roll, config: {prompts: 4}}]\n")
    (folder / "hot.yaml").write_text("stages: [{id: roll, config: {temperature: 2}}]\n")
    pipeline = load_spec("small.yaml", "hot.yaml").pipeline
    assert pipeline.steps == 3
    assert [stage.id for stage in pipeline.stages] == ["roll", "score", "advantage", "learn"]
    config = pipeline.stage("roll").config
    assert (config["prompts"], config["temperature"], config["max_tokens"]) == (4, 2.0, 4)


def test_a_mistake_in_an_overlay_is_told_with_the_overlays_line(folder: Path) -> None:
    (folder / "small.yaml").write_text("params: {grpo: 1}\nstages:\n  - {id: roll, config: {promts: 4}}\n")
    assert mistakes("small.yaml") == [
        "error: small.yaml:3: stage `roll`: `promts` is no key of `config`\nhint: did you mean `prompts`?"
    ]


def test_set_reaches_params_and_stages(folder: Path) -> None:
    sets = (
        "params.warmup=1",
        "stages.roll.config.stop=[a, b]",
        "seed=7",
        "checkpoint.every=2",
        "stages.learn.config.optimizer.adamw.lr=2e-4",
    )
    pipeline = load_spec(sets=sets).pipeline
    assert (pipeline.steps, pipeline.seed, pipeline.checkpoint["every"]) == (5, 7, 2)
    assert pipeline.stage("roll").config["stop"] == ["a", "b"]
    assert pipeline.stage("learn").config["optimizer"]["adamw"]["lr"] == 2e-4


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("params.warmpu=1", "error: --set params.warmpu=1: there is no param `warmpu`\nhint: did you mean `warmup`?"),
        ("stages.rol.every=1", "error: --set stages.rol.every=1: there is no stage `rol`\nhint: did you mean `roll`?"),
        (
            "params.warmup",
            "error: --set params.warmup: this sets nothing\n"
            "hint: write `--set KEY=VALUE`, such as `--set params.warmup=2`",
        ),
        (
            "stages.roll.config.prompts=many",
            "error: --set stages.roll.config.prompts=many: stage `roll`: `prompts`: `many` names `many`, "
            "which is no param\nhint: known names: grpo, warmup",
        ),
    ],
)
def test_a_mistake_in_a_setting_names_the_setting(folder: Path, setting: str, message: str) -> None:
    assert mistakes(sets=(setting,)) == [message]


def test_a_changed_file_makes_another_pipeline(folder: Path) -> None:
    """A run repeats its weights only if model, data and reward are the same, so they are part of its id."""
    before = load_spec().pipeline.id
    assert load_spec().pipeline.id == before
    (folder / "judge.py").write_text("def score(completion, answer, **rest):\n    return 0.5\n")
    after = load_spec().pipeline.id
    assert after != before
    (folder / "tokenizer" / "more.json").write_text("[]")
    assert load_spec().pipeline.id not in (before, after)


def test_the_emulated_engine_needs_none_of_the_files(folder: Path) -> None:
    shutil.rmtree(folder / "tokenizer")
    (folder / "sums.jsonl").unlink()
    assert load_spec(sets=("engine=emulated", "emulated.generate_s=0.01")).pipeline.digests == {}


PYTHON = """\
from dflow_protocols.pipeline import Pipeline, Stage

pipeline = Pipeline(
    name="arithmetic",
    steps=6,
    models={"policy": {"init": {"config": "model.json", "tokenizer": "tokenizer/"}}},
    data={"sums": {"jsonl": "sums.jsonl", "held_out": {"share": 0.1, "count": 50}}},
    stages=[
        Stage("roll", "generate", "policy", config={"data": "sums", "prompts": 8, "max_tokens": 4}),
        Stage("score", "reward", config={"function": "judge.py:score"}),
        Stage("advantage", "advantage"),
        Stage("learn", "train", "policy", config={"optimizer": {"adamw": {"lr": 1e-3}}}),
    ],
)
"""


def test_a_python_spec_is_the_same_pipeline(folder: Path) -> None:
    (folder / "arithmetic.py").write_text(PYTHON)
    assert load_spec(spec="arithmetic.py").pipeline.id == load_spec().pipeline.id


def test_a_python_spec_takes_settings_too(folder: Path) -> None:
    (folder / "arithmetic.py").write_text(PYTHON)
    assert load_spec(spec="arithmetic.py", sets=("steps=3",)).pipeline.steps == 3


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            '"prompts"',
            '"promts"',
            "error: arithmetic.py:3: stages[0].config.promts: stage `roll`: `promts` is no key of `config`\n"
            "hint: did you mean `prompts`?",
        ),
        (
            "steps=6",
            "steps=six",
            "error: arithmetic.py:5: NameError: name 'six' is not defined\n"
            "hint: the spec is run as Python; correct it there",
        ),
        (
            "pipeline = ",
            "pipelin = ",
            "error: arithmetic.py: it defines no `pipeline`\n"
            "hint: end it with `pipeline = Pipeline(...)`; code for a stage is named in a pipeline, "
            "as `arithmetic.py:NAME`",
        ),
    ],
)
def test_a_mistake_in_a_python_spec_is_told_with_its_line(folder: Path, old: str, new: str, message: str) -> None:
    (folder / "arithmetic.py").write_text(PYTHON.replace(old, new))
    assert mistakes(spec="arithmetic.py")[0] == message


def test_a_missing_spec_is_told_like_any_mistake(folder: Path) -> None:
    assert mistakes(spec="arithmetik.yaml") == [
        "error: arithmetik.yaml: there is no such file\nhint: give the path of a spec, such as spec.yaml"
    ]


def test_the_example_loads() -> None:
    loaded = load(EXAMPLES / "spell_backward.yaml", [], ["params.warmup=2", "params.grpo=4"])
    assert loaded.pipeline.steps == 6
    assert loaded.base == EXAMPLES


@pytest.mark.parametrize("reproducibility", ["replay", "exact"])
def test_a_plan_says_how_many_tasks_share_a_slot(
    folder: Path, capsys: pytest.CaptureFixture[str], reproducibility: str
) -> None:
    """Who chooses the partitions of a step sees what a slot makes of them."""
    main(["plan", "arithmetic.yaml", "--set", "stages.roll.engine=vllm", "--set", f"reproducibility={reproducibility}"])
    says = capsys.readouterr().out
    assert "in the first task" in says
    assert ("; a slot works on up to 8 tasks together" in says) is (reproducibility == "replay")


def test_a_plan_says_how_many_rounds_a_step_may_have(capsys: pytest.CaptureFixture[str]) -> None:
    main(["plan", str(EXAMPLES / "spell_backward.yaml"), str(EXAMPLES / "refill.yaml"), "--step", "60"])
    says = capsys.readouterr().out
    assert "36 tasks a stage (60/roll/p0 to p35), 288 groups, in up to 3 rounds until 72 are kept" in says
