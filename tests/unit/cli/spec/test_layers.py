"""A spec in layers: what lies above wins, null takes away, and every mistake names the line that it was made on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from dflow_cli.app import main
from dflow_cli.spec.layers import lay_all
from dflow_cli.spec.specfile import Loaded, SpecFileError, load
from dflow_cli.spec.spectree import read_yaml, strip
from tests.support.repository import EXAMPLES

EXAMPLE = EXAMPLES / "spell_backward.yaml"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where overlays are written; the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def laid(*overlays: str, sets: tuple[str, ...] = ()) -> Loaded:
    """The newcomer's pipeline under overlays, given as their texts."""
    files = [Path(f"{place}.yaml") for place in range(len(overlays))]
    for file, text in zip(files, overlays, strict=True):
        file.write_text(text)
    return load(EXAMPLE, files, sets)


def ids(*overlays: str, sets: tuple[str, ...] = ()) -> list[str]:
    return [stage.id for stage in laid(*overlays, sets=sets).pipeline.stages]


def learn(*overlays: str, sets: tuple[str, ...] = ()) -> dict[str, Any]:
    return dict(laid(*overlays, sets=sets).pipeline.stage("learn").config)


def mistakes(*overlays: str, sets: tuple[str, ...] = ()) -> list[tuple[str, str, str]]:
    with pytest.raises(SpecFileError) as caught:
        laid(*overlays, sets=sets)
    return [(problem.where, problem.what, problem.hint) for problem in caught.value.problems]


LENGTH = '{op: reward, config: {function: "dflowd.rewards.checks:overlong", args: {most: 6, buffer: 2}}'


@pytest.mark.parametrize(
    "stages", [f"[{{id: length, before: adv, {LENGTH[1:]}}}]", f"{{length: {LENGTH}, before: adv}}}}"]
)
def test_a_new_stage_stands_where_it_says(folder: Path, stages: str) -> None:
    """Stages may be a list, or a mapping by their ids; at the end nobody would read this one."""
    weights = "stages: {adv: {config: {rewards: {score: 1, length: 1}}}, heldout: null}"
    assert ids(f"stages: {stages}", weights) == ["warm", "roll", "score", "length", "adv", "learn"]


def test_a_stage_that_is_there_stays_in_its_place(folder: Path) -> None:
    """So an overlay can be laid over twice."""
    assert ids("stages: [{id: adv, before: roll}]") == ids()


def test_null_takes_a_key_or_a_stage_away(folder: Path) -> None:
    """In a mapping of the user's own names, too, where null is no default."""
    assert ids("stages: {heldout: null}") == ids(sets=("stages.heldout=null",)) == ids()[:-1]
    assert learn("stages: {learn: {config: {clip_norm: null}}}")["clip_norm"] is None
    models = "models: {spare: {init: {config: spell_llama.json, tokenizer: spell_tokenizer/}}}"
    assert set(laid(models, "models: {spare: null}").pipeline.models) == {"policy"}


def test_null_takes_away_what_a_function_would_be_given(folder: Path) -> None:
    """A function has no use for a None that nobody meant."""
    base = "stages: {adv: {op: 'own.py:f', writes: [advantage], config: null}}"
    own = "stages: {adv: {config: {margin: 0.2, scale: 2}}}"
    tree = lay_all(read_yaml(EXAMPLE.read_text(), "e"), [read_yaml(text, "o") for text in (base, own)], [])
    over = read_yaml("stages: {adv: {config: {scale: null}}}", "o")
    assert strip(lay_all(tree, [over], []))["stages"][3]["config"] == {"margin": 0.2}


@pytest.mark.parametrize(
    ("overlay", "where"),
    [
        ("stages:\n  - {id: new, before: learm, op: advantage}\n", "0.yaml:2"),
        ("stages:\n\n  learm: null\n", "0.yaml:3"),
    ],
)
def test_a_stage_that_is_not_there_is_told_with_its_line(folder: Path, overlay: str, where: str) -> None:
    assert mistakes(overlay) == [(where, "there is no stage `learm`", "did you mean `learn`?")]


def test_an_algorithm_wins_over_what_lies_below_it(folder: Path) -> None:
    """The example writes `method`, `drop_flat_groups`, `clip` and `mean`: of another algorithm that all goes."""
    pipeline = laid("algorithm: dr_grpo").pipeline
    assert pipeline.stage("adv").config == {"method": "grpo", "scale": "none", "drop_flat_groups": False}
    assert pipeline.stage("learn").config["loss"] == {"kind": "dr_grpo", "clip": [0.2, 0.2], "kl": 0.0}
    assert pipeline.stage("learn").config["optimizer"]["adamw"]["lr"] == 3e-4


def test_what_its_own_overlay_writes_wins_over_an_algorithm_and_so_does_what_lies_above(folder: Path) -> None:
    own = "algorithm: dr_grpo\nstages: {learn: {config: {loss: {clip: [0.1, 0.1]}}}}"
    assert learn(own)["loss"]["clip"] == [0.1, 0.1]
    assert learn(own, "stages: {learn: {config: {loss: {clip: [0.3, 0.3]}}}}")["loss"]["clip"] == [0.3, 0.3]
    assert learn(own, sets=("stages.learn.config.loss.clip=[0.4, 0.4]",))["loss"]["clip"] == [0.4, 0.4]


def test_of_two_algorithms_the_upper_one_holds_alone(folder: Path) -> None:
    """Nothing of the lower one is left, not even its stages: neither was written."""
    twice = laid("algorithm: rloo", "algorithm: cispo").pipeline
    assert twice.id == laid("algorithm: cispo").pipeline.id
    assert laid("algorithm: rloo", "algorithm: null").pipeline.id == laid().pipeline.id


def test_an_algorithm_may_be_set_before_or_after_other_settings(folder: Path) -> None:
    """What is set of its stages wins in either order, stages that it is yet to make included."""
    sets = ("stages.learn.config.loss.kl=0.1", "algorithm=grpo", "stages.ref.requires=[gpu]")
    pipeline = laid(sets=sets).pipeline
    assert pipeline.stage("learn").config["loss"]["kl"] == 0.1
    assert pipeline.stage("ref").requires == ["gpu"]
    assert pipeline.id == laid(sets=(sets[1], sets[0], sets[2])).pipeline.id


def test_a_mistake_in_what_an_algorithm_made_is_told_where_it_was_named(folder: Path) -> None:
    """And one in what was written, on its own line, although stages were put in between."""
    overlay = "algorithm: grpo\nstages:\n  learn: {config: {loss: {kl: 0.1}}}\n  heldout:\n    evry: 3\n"
    assert mistakes(overlay) == [("0.yaml:5", "`evry` is no key of `stages[6]`", "did you mean `every`?")]
    assert [where for where, *_ in mistakes("\nalgorithm: gprso\n")] == ["0.yaml:2"]


def test_a_plan_in_full_is_a_spec_that_means_the_same(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Who wants to see what an algorithm stands for may also go on from it."""
    loaded = laid("algorithm: rloo", sets=("params.grpo=3",))
    assert main(["plan", str(EXAMPLE), "0.yaml", "--set", "params.grpo=3", "--resolved"]) == 0
    text = capsys.readouterr().out
    assert "algorithm" not in yaml.safe_load(text)
    copied = folder / "copied"
    copied.mkdir()
    for name in ("spell_llama.json", "spell_tokenizer"):
        (copied / name).symlink_to(EXAMPLES / name)
    (copied / "full.yaml").write_text(text)
    assert load(copied / "full.yaml").pipeline.id == loaded.pipeline.id
