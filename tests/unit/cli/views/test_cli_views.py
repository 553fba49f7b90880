"""What people see: curves in text, the live picture, the graph of a pipeline."""

from __future__ import annotations

from typing import Any

import pytest

from dflow_cli.runs.follow import Picture
from dflow_cli.runs.outcome import read_outcome
from dflow_cli.runs.pace import kinds, left_s
from dflow_cli.runs.stages import in_order, stage_names
from dflow_cli.views.chart import chart, fit
from dflow_cli.views.dag import draw_mermaid, draw_text
from dflow_cli.views.progress import PlainView, line
from dflow_protocols.pipeline import Pipeline, Stage
from tests.unit.cli.fakedaemon import told_rows, told_run

WORDS = {"reasoning_gym": "spell_backward", "held_out": {"by": "question_lower", "share": 0.1, "count": 10}}
ADAMW = {"adamw": {"lr": 1e-3}}


def pipeline() -> Pipeline:
    """Warm-up for two steps, then four of GRPO, evaluated at every second one."""
    generate = {"data": "words", "prompts": 8, "group": 2, "partitions": 4, "max_tokens": 4}
    sft = {"data": "words", "demos": 8, "batch": 4, "partitions": 2, "leaves": 2, "optimizer": ADAMW}
    return Pipeline(
        name="toy",
        steps=6,
        models={"policy": {"init": {"config": "llama.json", "tokenizer": "tokenizer/"}}},
        data={"words": WORDS},
        stages=[
            Stage("warm", "sft", model="policy", when="step < 2", config=sft),
            Stage("roll", "generate", model="policy", when="step >= 2", config=generate),
            Stage("score", "reward"),
            Stage("adv", "advantage"),
            Stage("learn", "train", model="policy", config={"leaves": 4, "optimizer": ADAMW}),
            Stage("check", "evaluate", model="policy", when="step >= 2", every=2, config={"data": "words.held_out"}),
        ],
    )


def picture(**changes: Any) -> Picture:
    rows = {row["step"]: row for row in told_rows(6)}
    outcome = read_outcome(told_run(**changes))
    samples = [{"step": 6, "prompt": "spell [cat]", "completion": "tac [/]", "answer": "tac", "reward": 1.0}]
    members = [{"name": "n0", "state": "alive"}, {"name": "n1", "state": "dead"}]
    spec = pipeline().canonical()
    return Picture(outcome, rows, samples, members, {"n0": ["roll", "score"]}, kinds(spec), stage_names(spec))


def test_a_curve_rises_from_its_least_value_to_its_greatest() -> None:
    """The least value still shows, so that a gap means no data."""
    assert chart([0.0, 0.5, 1.0], 3, 1) == ["▁▅█"]
    assert chart([0.0, 1.0], 2, 2) == [" █", "▁█"]


@pytest.mark.parametrize("values", [[], [3.0], [3.0, 3.0, 3.0]])
def test_a_curve_without_a_rise_is_drawn_too(values: list[float]) -> None:
    """The first moments of a run."""
    assert [len(row) for row in chart(values, 5, 3)] == [5 if values else 0] * 3


def test_a_curve_takes_the_width_that_there_is() -> None:
    """Of many values every one counts once; of few each fills as many columns."""
    assert fit([1.0, 3.0, 5.0, 7.0], 2) == [2.0, 6.0]
    assert fit([1.0, 2.0], 5) == [1.0, 1.0, 1.0, 2.0, 2.0]


def test_a_run_without_a_first_step_has_a_line() -> None:
    """Version 0 is still being made."""
    shown = picture(state="active", step=0, evals=[])
    shown.rows, shown.samples, shown.members, shown.doing = {}, [], [], {}
    assert line(shown) == "step 0/6"


def test_plain_lines_tell_each_evaluation_once(capsys: pytest.CaptureFixture[str]) -> None:
    """A log must not repeat what it said."""
    with PlainView() as view:
        view.show(picture(state="active", step=5))
        view.show(picture())
    told = capsys.readouterr().err
    assert told.count("step 2: accuracy 0.400") == 1
    assert "step 6/6  reward 1.000" in told


def test_time_left_counts_each_kind_of_step_by_its_own_pace() -> None:
    """Warm-up steps are short; four minutes of GRPO must not be announced as one."""
    rows = {step: {"step_s": 1.0 if step <= 50 else 3.0} for step in range(1, 54)}
    assert left_s(rows, ["warm"] * 50 + ["learn"] * 10, 53) == pytest.approx(21.0)


def test_time_left_is_unknown_until_every_kind_of_step_was_seen() -> None:
    """A guess that triples later is worse than none."""
    rows = {step: {"step_s": 1.0} for step in range(1, 40)}
    assert left_s(rows, ["warm"] * 50 + ["learn"] * 10, 39) is None


def test_kinds_follow_from_the_spec() -> None:
    """What a step trains says how long it takes."""
    assert kinds(pipeline().canonical()) == ("warm", "warm", "learn", "learn", "learn", "learn")


def test_stages_are_listed_as_the_pipeline_has_them() -> None:
    """By name `adv` would stand before `roll`, and what a step does would have to be pieced together."""
    names = ["save", "learn.apply", "adv", "roll", "learn", "check"]
    assert in_order(names, stage_names(pipeline().canonical())) == [
        "roll",
        "adv",
        "learn",
        "learn.apply",
        "check",
        "save",
    ]
    assert stage_names(b"{}") == ()


def test_the_graph_shows_each_stage_below_what_it_waits_for() -> None:
    """Ids, operators, what is read, and when."""
    assert draw_text(pipeline().stages) == [
        "warm            sft policy; when step < 2",
        "roll            generate policy; when step >= 2",
        "└─ score        reward; reads roll.rollout",
        "   └─ adv       advantage; reads roll.rollout, score.reward",
        "      └─ learn  train policy; reads roll.rollout, adv.advantage",
        "check           evaluate policy; when step >= 2; every 2 steps",
    ]


def test_mermaid_has_an_arrow_for_each_output_read_and_none_twice() -> None:
    """Dotted arrows lead back: whoever samples reads the weights of the step before."""
    lines = draw_mermaid(pipeline().stages)
    assert lines[0] == "flowchart LR"
    assert "  roll -->|rollout| adv" in lines
    assert "  score -->|reward| adv" in lines
    assert "  learn -.->|policy| roll" in lines
    assert len(lines) == len(set(lines))
    assert '  warm["warm<br/>sft policy<br/>when step &lt; 2"]' in lines


def test_each_of_several_rewards_is_shown() -> None:
    """The sum alone hides which one moves."""
    shown = picture()
    for row in shown.rows.values():
        row |= {"reward_mean/right": 0.25, "reward_mean/short": 0.75}
    assert "reward/right 0.250  reward/short 0.750" in line(shown)
