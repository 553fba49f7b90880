"""Validation: each mistake is told with its place, what is wrong and the remedy; the texts are part of the product."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dflow_protocols.pipeline import Pipeline, Problem, SpecError
from tests.support.draws import draws
from tests.unit.protocols.written_specs import example, stage

Change = Callable[[dict[str, Any]], Any]


def problems_of(spec: Any) -> tuple[Problem, ...]:
    try:
        Pipeline.from_dict(spec)
    except SpecError as error:
        return error.problems
    return ()


def config(spec: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = stage(spec, name)["config"]
    return found


def without(spec: dict[str, Any], *names: str) -> None:
    spec["stages"] = [stage for stage in spec["stages"] if stage["id"] not in names]


MISTAKES: dict[str, tuple[Change, tuple[str, str, str]]] = {
    "unknown key": (
        lambda s: s.update(modles={}),
        ("modles", "`modles` is no key of a pipeline", "did you mean `models`?"),
    ),
    "half a character": (
        lambda s: s["data"]["words"].update(template="{prompt}\ud83d"),
        ("data.words.template", "`template` has \\ud83d, which is half a character", "write the whole character"),
    ),
    "half a character in arguments": (
        lambda s: config(s, "score").update(args={"mark": ["\ude00"]}),
        (
            "stages[2].config.args.mark[0]",
            "`mark[0]` has \\ude00, which is half a character",
            "write the whole character",
        ),
    ),
    "unknown precision of a stage": (
        lambda s: config(s, "learn").update(compute="float16"),
        (
            "stages[4].config.compute",
            "stage `learn`: `compute` is `float16`",
            "did you mean `bfloat16`?",
        ),
    ),
    "unknown precision of a model": (
        lambda s: s["models"]["policy"].update(dtype="int8"),
        ("models.policy.dtype", "`dtype` is `int8`", "known values: bfloat16, float32"),
    ),
    "unknown stage key": (
        lambda s: stage(s, "roll").update(modle="policy"),
        ("stages[1].modle", "`modle` is no key of `stages[1]`", "did you mean `model`?"),
    ),
    "unknown config key": (
        lambda s: config(s, "roll").update(promts=3),
        ("stages[1].config.promts", "stage `roll`: `promts` is no key of `config`", "did you mean `prompts`?"),
    ),
    "unknown loss key": (
        lambda s: config(s, "learn")["loss"].update(clp=[0.2, 0.2]),
        ("stages[4].config.loss.clp", "stage `learn`: `clp` is no key of `loss`", "did you mean `clip`?"),
    ),
    "unknown operator": (
        lambda s: stage(s, "roll").update(op="generat"),
        (
            "stages[1].op",
            "stage `roll`: there is no operator `generat`",
            "did you mean `generate`? (or give `module:function`, or `file.py:function` beside the spec)",
        ),
    ),
    "operator by another trainer's name": (
        lambda s: stage(s, "learn").update(op="grpo"),
        (
            "stages[4].op",
            "stage `learn`: there is no operator `grpo`",
            "did you mean `train`? (or give `module:function`, or `file.py:function` beside the spec)",
        ),
    ),
    "key by another trainer's name": (
        lambda s: config(s, "learn").update(dtype="bfloat16"),
        ("stages[4].config.dtype", "stage `learn`: `dtype` is no key of `config`", "did you mean `compute`?"),
    ),
    "way of giving a model that another trainer has": (
        lambda s: s["models"].update(policy={"hub": "OWNER/NAME"}),
        ("models.policy.hub", "`hub` is no key of `policy`", "did you mean `path`?"),
    ),
    "unknown model": (
        lambda s: stage(s, "learn").update(model="polcy"),
        ("stages[4].model", "stage `learn`: there is no model `polcy`", "did you mean `policy`?"),
    ),
    "missing model": (
        lambda s: stage(s, "learn").pop("model"),
        ("stages[4].model", "stage `learn`: `train` needs a `model`", "known models: policy"),
    ),
    "adapters of no rank": (
        lambda s: s["models"]["policy"].update(lora={"rank": 0, "alpha": 16}),
        ("models.policy.lora.rank", "`rank` is 0", "it has to be a whole number at least 1 and at most 4096"),
    ),
    "adapters without alpha": (
        lambda s: s["models"]["policy"].update(lora={"rank": 8}),
        (
            "models.policy.lora.alpha",
            "`alpha` is missing",
            "it is a number above 0 and at most 1e+06: an adapter's part is multiplied by alpha / rank",
        ),
    ),
    "adapters with dropout": (
        lambda s: s["models"]["policy"].update(lora={"rank": 8, "alpha": 16, "dropout": 0.1}),
        (
            "models.policy.lora.dropout",
            "`dropout` is 0.1, and a gradient here is a function of its leaf",
            "leave `dropout` out: it is 0",
        ),
    ),
    "adapters of a model that is not trained": (
        lambda s: s["models"].update(reference=s["models"]["policy"] | {"lora": {"rank": 8, "alpha": 16}}),
        (
            "models.reference.lora",
            "model `reference` has adapters, and no stage trains it",
            "leave `lora` out: without adapters it is the same model",
        ),
    ),
    "adapters of an engine that only pretends": (
        lambda s: s.update(engine="emulated") or s["models"]["policy"].update(lora={"rank": 8, "alpha": 16}),
        (
            "models.policy.lora",
            "model `policy` has adapters, and emulated engines have no weights to put them beside",
            "write `engine: torch`, or leave `lora` out",
        ),
    ),
    "unknown data": (
        lambda s: config(s, "roll").update(data="word"),
        ("stages[1].config.data", "stage `roll`: there is no data `word`", "did you mean `words`?"),
    ),
    "nothing held out": (
        lambda s: s["data"]["words"].pop("held_out"),
        (
            "stages[5].config.data",
            "stage `heldout`: `words` holds nothing out",
            "add `held_out: {share: 0.1, count: 500}` to `data.words`",
        ),
    ),
    "training on held-out data": (
        lambda s: config(s, "roll").update(data="words.held_out"),
        (
            "stages[1].config.data",
            "stage `roll`: `data` is `words.held_out`",
            "it has to be a letter, then letters, digits and _ (64 at most)",
        ),
    ),
    "unknown param": (
        lambda s: s.update(steps="warmup + gpro"),
        ("steps", "`steps`: `warmup + gpro` names `gpro`, which is no param", "did you mean `grpo`?"),
    ),
    "steps by step": (
        lambda s: s.update(steps="step + 1"),
        ("steps", "`steps`: `step + 1` names `step`, which is no param", "only `when` may depend on the step"),
    ),
    "no steps": (
        lambda s: s.update(steps="warmup - 50"),
        ("steps", "`steps` is 0", "it has to be a whole number at least 1 and at most 1e+06"),
    ),
    "when is a number": (
        lambda s: stage(s, "roll").update(when="step - warmup"),
        (
            "stages[1].when",
            "`when`: `step - warmup` is a number, not a condition",
            "for example `step >= 10`",
        ),
    ),
    "when without a value": (
        lambda s: stage(s, "roll").update(when="100 % step > 0"),
        (
            "stages[1].when",
            "stage `roll`: `when` divides by zero at step 0",
            "it has to be true or false at every step",
        ),
    ),
    "runs without its inputs": (
        lambda s: stage(s, "learn").update(when="step >= 40"),
        (
            "stages[4].when",
            "stage `learn` runs at step 40, but `roll`, which it reads, does not",
            "leave `when` out: it then runs whenever what it reads is there",
        ),
    ),
    "more updates in a step than are kept for": (
        lambda s: stage(s, "learn")["config"].update(epochs=64, minibatches=8),
        (
            "stages",
            "a step makes 512 updates",
            "lower `epochs` or `minibatches`: a step makes at most 256",
        ),
    ),
    "rollouts of any version where weights are to follow from the spec": (
        lambda s: s.update({"async": {"max_staleness": 2}, "reproducibility": "exact"}),
        (
            "async",
            "`reproducibility` is exact, and with `async` rollouts are of whatever version there is",
            "write `lag: 2` in its place, or `reproducibility: replay`",
        ),
    ),
    "rollouts of any version and of one": (
        lambda s: s.update({"async": {"max_staleness": 2}, "lag": 1}),
        (
            "lag",
            "`lag` is 1, and `async` lets rollouts be up to 2 steps behind",
            "leave one of them out: `lag` is exact, `async` waits less",
        ),
    ),
    "rollouts of more versions than are known by name": (
        lambda s: (
            s.update({"async": {"max_staleness": 3}, "reproducibility": "replay"}),
            stage(s, "learn")["config"].update(epochs=2, minibatches=50, correction={"kind": "none"}),
        ),
        (
            "async.max_staleness",
            "rollouts may be 300 versions behind, as a step makes 100 updates",
            "lower it, `epochs` or `minibatches`: names of 256 versions are kept",
        ),
    ),
    "reads what nobody writes": (
        lambda s: without(s, "score"),
        (
            "stages[2]",
            "stage `adv` reads `reward`, which no stage before it writes",
            "add a `reward` stage before it",
        ),
    ),
    "reads what comes later": (
        lambda s: s["stages"].insert(2, s["stages"].pop(3)),
        (
            "stages[2]",
            "stage `adv` reads `reward`, which no stage before it writes",
            "move `score`, which writes it, before `adv`",
        ),
    ),
    "reads of an unknown stage": (
        lambda s: stage(s, "score").update(reads=["rol.rollout"]),
        (
            "stages[2].reads[0]",
            "stage `score` reads `rol.rollout`, but there is no stage `rol`",
            "did you mean `roll`?",
        ),
    ),
    "reads what has no use": (
        lambda s: stage(s, "score").update(reads=["adv.advantage"]),
        (
            "stages[2].reads[0]",
            "stage `score` reads `adv.advantage`, but `reward` has no use for `advantage`",
            "known inputs: rollout",
        ),
    ),
    "cycle": (
        lambda s: stage(s, "score").update(after=["adv"]),
        (
            "stages[3]",
            "stages wait for each other: `adv` -> `score` -> `adv`",
            "take one of these out of `reads` or `after`",
        ),
    ),
    "kl without a reference": (
        lambda s: config(s, "learn")["loss"].update(kl=0.1),
        (
            "stages[4]",
            "stage `learn` reads `logprob`, which no stage before it writes",
            "add a `logprob` stage before it",
        ),
    ),
    "leaves": (
        lambda s: config(s, "learn").update(leaves=7),
        ("stages[4].config.leaves", "stage `learn`: `leaves` is 7, which is no power of two", "use 4 or 8"),
    ),
    "partitions": (
        lambda s: config(s, "roll").update(partitions=97),
        (
            "stages[1].config.partitions",
            "stage `roll`: 97 partitions for 96 prompts",
            "`partitions` is at most `prompts`",
        ),
    ),
    "batch": (
        lambda s: config(s, "warm").update(batch=2001),
        ("stages[0].config.batch", "stage `warm`: a batch of 2001 from 2000 demos", "`batch` is at most `demos`"),
    ),
    "two stages of one name": (
        lambda s: stage(s, "score").update(id="roll"),
        ("stages[2].id", "there are two stages `roll`", "rename one of them"),
    ),
    "bad type": (
        lambda s: config(s, "roll").update(prompts=[96]),
        ("stages[1].config.prompts", "stage `roll`: `prompts` is a list", "it has to be a whole number at least 1"),
    ),
    "fraction": (
        lambda s: config(s, "roll").update(prompts=9.5),
        (
            "stages[1].config.prompts",
            "stage `roll`: `prompts` is the number 9.5",
            "it has to be a whole number at least 1",
        ),
    ),
    "choice": (
        lambda s: config(s, "learn")["loss"].update(mean="tokens"),
        ("stages[4].config.loss.mean", "stage `learn`: `mean` is `tokens`", "did you mean `token`?"),
    ),
    "required key": (
        lambda s: config(s, "roll").pop("max_tokens"),
        (
            "stages[1].config.max_tokens",
            "stage `roll`: `max_tokens` is missing",
            "it is a whole number at least 1: a completion that is longer is cut off",
        ),
    ),
    "optimizer": (
        lambda s: config(s, "learn").update(optimizer={"adam": {"lr": 1e-3}}),
        ("stages[4].config.optimizer.adam", "stage `learn`: `adam` is no key of `optimizer`", "did you mean `adamw`?"),
    ),
    "model of two kinds": (
        lambda s: s["models"]["policy"].update(path="here"),
        ("models.policy", "`policy` has `init` and `path`", "it has to have exactly one of them"),
    ),
    "lag": (
        lambda s: s.update(lag=9),
        ("lag", "`lag` is 9", "it has to be a whole number at least 0 and at most 8"),
    ),
    "staleness": (
        lambda s: s.update({"async": {"max_staleness": 0}}),
        ("async.max_staleness", "`max_staleness` is 0", "it has to be a whole number at least 1 and at most 8"),
    ),
    "plan version": (
        lambda s: s.update(plan_version=1),
        (
            "plan_version",
            "`plan_version` is 1, but this dflowd plans by version 2",
            "write `plan_version: 2`; its weights are others",
        ),
    ),
    "profile without its engine": (
        lambda s: s.update(emulated={"generate_s": 1}),
        ("emulated", "`emulated` is a profile of the engine `emulated`", "add `engine: emulated`"),
    ),
    "nothing trains": (
        lambda s: without(s, "warm", "learn"),
        ("stages", "no stage trains", "add a `train` or an `sft` stage"),
    ),
    "own operator without outputs": (
        lambda s: s["stages"].append({"id": "own", "op": "mine:log", "reads": ["reward"]}),
        ("stages[6].writes", "stage `own`: `mine:log` is no built-in operator", "say what it writes in `writes`"),
    ),
    "own operator with chance in it": (
        lambda s: s["stages"].append(
            {"id": "own", "op": "mine:f", "reads": ["rollout"], "writes": ["x"], "effect": "stochastic"}
        ),
        (
            "stages[6].effect",
            "stage `own`: it is stochastic, but `reproducibility` is exact",
            "set `reproducibility: replay`",
        ),
    ),
    "stages joined": (
        lambda s: s["stages"].append(
            {"id": "own", "op": "mine:f", "reads": ["roll.rollout", "heldout.evaluation"], "writes": ["x"]}
        ),
        (
            "stages[5]",
            "stages `roll` and `heldout` are joined by a stage that reads both",
            "split that stage in two",
        ),
    ),
    "after in another chain": (
        lambda s: stage(s, "heldout").update(after=["learn"]),
        (
            "stages[5].after",
            "stage `heldout` comes after `learn`, but not on the same partitions",
            "`after` orders the stages of one chain only",
        ),
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_with_its_place_and_its_remedy(name: str) -> None:
    """Exactly one problem a mistake: what follows from it is not blamed as well."""
    change, (path, what, hint) = MISTAKES[name]
    spec = example()
    change(spec)
    assert problems_of(spec) == (Problem(path, what, hint),)


def test_all_mistakes_are_told_at_once() -> None:
    """Who has made five mistakes should not need five tries."""
    spec = example()
    spec["lag"] = -1
    config(spec, "roll")["temperature"] = 0
    config(spec, "adv")["method"] = "gpro"
    stage(spec, "learn")["model"] = "polcy"
    spec["checkpoint"] = {"evry": 5}
    assert [problem.path for problem in problems_of(spec)] == [
        "lag",
        "checkpoint.evry",
        "stages[1].config.temperature",
        "stages[3].config.method",
        "stages[4].model",
    ]


@pytest.mark.parametrize("raw", [None, [], "name: x", 3])
def test_what_is_no_mapping_is_no_pipeline(raw: Any) -> None:
    assert problems_of(raw) == (Problem("", "a pipeline is a mapping", "start with `name: my_pipeline`"),)


plain: st.SearchStrategy[Any] = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
junk: st.SearchStrategy[Any] = plain | st.just([]) | st.just({"x": [1]})


@given(data=st.data(), value=junk)
@draws(150)
def test_no_value_anywhere_breaks_validation(data: st.DataObject, value: Any) -> None:
    """Whatever stands where: a pipeline comes out that reads back as itself, or problems that name their place."""
    spec = example()
    where: Any = spec
    while True:
        key = data.draw(st.sampled_from(sorted(where) if isinstance(where, dict) else range(len(where))))
        deeper = isinstance(where[key], dict | list) and where[key]
        if not deeper or data.draw(st.booleans()):
            where[key] = value
            break
        where = where[key]
    problems = problems_of(spec)
    assert all(problem.what and problem.hint for problem in problems)
    if not problems:
        pipeline = Pipeline.from_dict(spec)
        assert Pipeline.from_canonical(pipeline.canonical()) == pipeline
