"""Doubts: what can run and is probably not meant is told before a night is spent on it."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from typing import Any

import pytest

from dflow_protocols.pipeline import Pipeline
from dflow_protocols.pipeline.doubts import doubts
from tests.unit.protocols.written_specs import example, stage


def told(change: Callable[[dict[str, Any]], Any] = lambda spec: None) -> list[tuple[str, str]]:
    """(path, what) of each doubt about the changed example."""
    spec = example()
    change(spec)
    return [(doubt.path, doubt.what) for doubt in doubts(Pipeline.from_dict(spec))]


def config(name: str, **values: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda spec: stage(spec, name)["config"].update(values)


def test_the_example_is_meant_as_it_is() -> None:
    """A warning that everybody gets is read by nobody."""
    assert told() == []


@pytest.mark.parametrize(
    ("change", "path", "words"),
    [
        (config("roll", top_p=0.9), "stages[1].config.top_p", "`top_p` 0.9 samples from another policy"),
        (config("roll", group=1), "stages[1].config.group", "a group of 1 teaches nothing"),
        (config("roll", temperature=0.01), "stages[1].config.temperature", "the completions of a group are alike"),
        (config("adv", rewards={"score": 0}), "stages[3].config.rewards", "nothing is rewarded"),
        (config("learn", loss={"clip": [0, 0.2]}), "stages[4].config.loss.clip", "a `clip` of 0 cuts"),
        (config("learn", loss={"clip": [2, 0.2]}), "stages[4].config.loss.clip", "a `clip` of 2 below 1 cuts nothing"),
        (
            config("learn", optimizer={"adamw": {"lr": 1e-2, "weight_decay": 200}}),
            "stages[4].config.optimizer.adamw.weight_decay",
            "takes all weights to zero or past",
        ),
        (
            config("heldout", data="words", count=8),
            "stages[5].config.data",
            "evaluates `words`, which `warm` trains on",
        ),
        (lambda s: stage(s, "warm").update(when="step > 400"), "stages[0].when", "runs at none of the 230 steps"),
        (lambda s: stage(s, "roll").update(when="step < 0"), "stages[1].when", "`roll` runs at none of the 230 steps"),
        (lambda s: stage(s, "learn").update(every=1000), "stages[4].every", "`learn` runs once: `every` is 1000"),
        (
            lambda s: s["params"].update(warmup=2),
            "stages[0].config.optimizer.adamw.ramp_steps",
            "`warm` never reaches its `lr`: `ramp_steps` is 20, and it makes 2 updates",
        ),
        (config("heldout", temperature=0.7), "stages[5].config.temperature", "`temperature` 0.7 changes nothing"),
        (config("heldout", top_p=0.7), "stages[5].config.top_p", "`top_p` 0.7 changes nothing"),
    ],
)
def test_what_is_probably_not_meant_is_told_with_its_key(
    change: Callable[[dict[str, Any]], Any], path: str, words: str
) -> None:
    """Each of these runs to its end, and costs the night all the same."""
    ((where, what),) = told(change)
    assert where == path
    assert words in what


def test_a_loss_that_has_fewer_settings_is_looked_at_all_the_same() -> None:
    """A loss is a row of a table: one without clipping must not end the validation in a traceback."""
    pipeline = Pipeline.from_dict(example())
    plain = [
        replace(stage, config={**stage.config, "loss": {"kind": "plain"}}) if "loss" in stage.config else stage
        for stage in pipeline.stages
    ]
    assert any("loss" in stage.config for stage in plain)
    with_it = copy(pipeline)
    object.__setattr__(with_it, "stages", plain)  # as it is once the table has that row
    assert [doubt for doubt in doubts(with_it) if "clip" in doubt.path] == []


def test_a_kl_that_a_deviation_blows_up_is_doubted() -> None:
    """A group in which all are right would be trained on its distance from the reference as if it were right and
    wrong."""
    spec = example()
    spec["models"]["reference"] = dict(spec["models"]["policy"])
    spec["stages"].insert(3, {"id": "ref", "op": "logprob", "model": "reference"})
    adv = stage(spec, "adv")["config"]
    adv |= {"kl": 0.05, "drop_flat_groups": False}
    assert "`scale: std` blows that up" in next(doubts(Pipeline.from_dict(spec))).what
    for mended in ({"scale": "none"}, {"drop_flat_groups": True}):
        stage(spec, "adv")["config"] = adv | mended
        assert not [*doubts(Pipeline.from_dict(spec))]
