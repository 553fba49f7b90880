"""Which engine computes what: a stage may name its own, and must name one that can do its work."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dflow_protocols.names import RunId, VersionId
from dflow_protocols.pipeline import Pipeline, plan
from dflow_protocols.pipeline.grammar.engines import ENGINES, GRADIENTS, ROLLOUTS, STATES, EngineKind
from dflow_protocols.pipeline.grammar.layout import STAGE, TOP
from dflow_protocols.pipeline.grammar.problem import SpecError
from dflow_protocols.pipeline.plan import MOST_AT_ONCE
from dflow_protocols.wire.steps import Header
from dflow_protocols.work import ApplyWork, BlockWork, ChainWork, InitWork, SaveWork, Work, engine_of
from tests.unit.protocols.written_specs import example, stage

HEADER = Header(VersionId("c" * 64), 1, 0, "d" * 64, ())
STATE_WORKS: tuple[Work, ...] = (
    InitWork(),
    ApplyWork(0, "learn", (), (), 0, 1, False),
    SaveWork(RunId("a" * 32), HEADER),
)


@pytest.fixture
def echo(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that only samples."""
    monkeypatch.setitem(ENGINES, "echo", EngineKind(frozenset({ROLLOUTS})))
    for keys in (STAGE, TOP):
        monkeypatch.setitem(keys, "engine", replace(keys["engine"], choices=tuple(ENGINES)))  # type: ignore[arg-type]


def test_an_engine_that_is_the_pipelines_own_is_not_written() -> None:
    """A pipeline that names no engine for its stages keeps its id, and with it all of its random numbers."""
    plain = Pipeline.from_dict(example())
    assert all("engine" not in each.to_dict() for each in plain.stages)
    spec = example()
    stage(spec, "score")["engine"] = "torch"
    assert Pipeline.from_dict(spec).canonical() == plain.canonical()


def test_a_stage_keeps_its_engine_through_the_canonical_form() -> None:
    spec = example()
    stage(spec, "score")["engine"] = "emulated"
    pipeline = Pipeline.from_canonical(Pipeline.from_dict(spec).canonical())
    assert [pipeline.engine_of(name) for name in ("roll", "score", "learn")] == ["torch", "emulated", "torch"]
    assert pipeline.id != Pipeline.from_dict(example()).id


def test_rollouts_and_gradients_go_to_their_stages_engine_and_states_to_the_pipelines() -> None:
    """What needs no model needs no engine of its own: it is done where version 0 and checkpoints are."""
    spec = example() | {"emulated": {"generate_s": 0.1}}
    for name in ("roll", "learn"):
        stage(spec, name)["engine"] = "emulated"
    pipeline = Pipeline.from_dict(spec)
    assert engine_of(pipeline, ChainWork(60, ("roll",), 0, ())) == "emulated"
    assert engine_of(pipeline, ChainWork(60, ("score", "adv"), 0, ())) == "torch"
    assert engine_of(pipeline, BlockWork(60, "learn", 0, 1, (), (), ())) == "emulated"
    assert [engine_of(pipeline, work) for work in STATE_WORKS] == ["torch"] * len(STATE_WORKS)


def test_files_are_bound_if_any_engine_opens_them() -> None:
    """A run of emulated stages needs no model on its hosts, and one stage that opens a file needs them all alike."""
    spec = example() | {"engine": "emulated"}
    assert not Pipeline.from_dict(spec).opens_files
    stage(spec, "heldout")["engine"] = "torch"
    assert Pipeline.from_dict(spec).opens_files


@pytest.mark.usefixtures("echo")
def test_an_engine_is_given_only_what_it_can_do() -> None:
    """Told with the key and an engine that can, before anything is submitted."""
    spec = example()
    stage(spec, "roll")["engine"] = "echo"
    assert Pipeline.from_dict(spec).engine_of("roll") == "echo"
    stage(spec, "learn")["engine"] = "echo"
    stage(spec, "warm")["engine"] = "echo"
    with pytest.raises(SpecError) as caught:
        Pipeline.from_dict(spec)
    assert [(problem.path, problem.what, problem.hint) for problem in caught.value.problems] == [
        (
            f"stages[{place}].engine",
            f"stage `{name}`: the engine `echo` does no gradients, and `{op}` needs it",
            "such as `engine: torch`",
        )
        for place, name, op in ((0, "warm", "sft"), (4, "learn", "train"))
    ]


@pytest.mark.usefixtures("echo")
def test_a_pipelines_engine_keeps_its_versions() -> None:
    with pytest.raises(SpecError, match="the engine `echo` does no states"):
        Pipeline.from_dict(example() | {"engine": "echo"})


def test_engines_of_the_format_say_what_they_do() -> None:
    assert all(kind.does <= {ROLLOUTS, GRADIENTS, STATES} for kind in ENGINES.values())


def sampled_by_vllm(**more: object) -> dict[str, Any]:
    """The example, sampled by an engine that only samples."""
    return {key: value for key, value in example().items() if key != "reproducibility"} | {"engine": "vllm"} | more


def refusals(spec: dict[str, Any]) -> list[tuple[str, str, str]]:
    with pytest.raises(SpecError) as caught:
        Pipeline.from_dict(spec)
    return [(problem.path, problem.what, problem.hint) for problem in caught.value.problems]


def test_an_engine_that_only_samples_is_one_of_the_stages_that_sample() -> None:
    """At the top it means no more than in each of them, so either way to write it is the same pipeline: gradients,
    rewards and versions are the other engine's."""
    pipeline = Pipeline.from_dict(sampled_by_vllm())
    assert pipeline.engines == ("torch", "vllm")
    by = {each.id: pipeline.engine_of(each.id) for each in pipeline.stages}
    assert {name for name, engine in by.items() if engine == "vllm"} == {"roll", "heldout"}
    spec = sampled_by_vllm(engine="torch")
    for name in ("roll", "heldout"):
        stage(spec, name)["engine"] = "vllm"
    assert Pipeline.from_dict(spec).canonical() == pipeline.canonical()
    assert Pipeline.from_canonical(pipeline.canonical()) == pipeline
    spec = sampled_by_vllm()
    stage(spec, "heldout")["engine"] = "torch"
    assert Pipeline.from_dict(spec).engine_of("heldout") == "torch"


def test_a_run_that_does_not_say_claims_what_its_engines_do() -> None:
    """Weights are a function of the spec only where every engine repeats its bytes."""
    plain = {key: value for key, value in example().items() if key != "reproducibility"}
    assert Pipeline.from_dict(plain).canonical() == Pipeline.from_dict(plain | {"reproducibility": "exact"}).canonical()
    assert Pipeline.from_dict(sampled_by_vllm()).reproducibility == "replay"
    assert Pipeline.from_dict(sampled_by_vllm(reproducibility="exact")).reproducibility == "exact"


def test_a_stage_asks_for_nodes_that_have_its_engine() -> None:
    """No task goes to a node that cannot do it, nor, where bytes are to repeat, to one that does not repeat them."""
    replay, exact = (Pipeline.from_dict(sampled_by_vllm(reproducibility=each)) for each in ("replay", "exact"))
    assert replay.needs("roll") == {"vllm"}
    assert exact.needs("roll") == {"vllm", "cpu"}
    assert exact.needs("learn") == exact.needs("score") == frozenset()
    spec = sampled_by_vllm()
    stage(spec, "roll")["requires"] = ["gpu"]
    assert Pipeline.from_dict(spec).needs("roll") == {"vllm", "gpu"}


def test_what_an_engine_cannot_promise_is_refused() -> None:
    """Before the run is submitted, with the key that is to be changed."""
    spec = sampled_by_vllm(reproducibility="exact")
    stage(spec, "roll")["requires"] = ["gpu"]
    assert refusals(spec) == [
        (
            "stages[1].requires",
            "`reproducibility` is exact, and stage `roll` requires `gpu`, where the engine `vllm` does not repeat its "
            "bytes",
            "write `reproducibility: replay`, or `requires: [cpu]` in the stage",
        )
    ]


def test_what_an_engine_that_only_samples_cannot_do_is_refused() -> None:
    spec = sampled_by_vllm()
    stage(spec, "roll")["config"]["top_p"] = 0.9
    stage(spec, "score")["engine"] = "vllm"
    assert refusals(spec) == [
        (
            "stages[1].config.top_p",
            "stage `roll`: `top_p` is 0.9, and the engine `vllm` tells only probabilities of what is left then",
            "leave `top_p` out, or write `engine: torch` in this stage",
        ),
        (
            "stages[2].engine",
            "stage `score`: the engine `vllm` only samples, and `reward` samples nothing",
            "leave it out: `torch` does this stage",
        ),
    ]
    spec = sampled_by_vllm()
    spec["models"]["other"] = spec["models"]["policy"]
    stage(spec, "heldout")["model"] = "other"
    stage(spec, "heldout")["config"]["max_tokens"] = 8
    ((path, what, hint),) = refusals(spec)
    assert path.endswith(".engine")
    assert "samples from model `policy` in stage `roll` and from `other` in `heldout`" in what
    assert hint == "write `engine: torch` in one of them"


LOOSE: dict[str, Any] = {"async": {"max_staleness": 2}, "reproducibility": "replay"}
TRUNCATED = {"kind": "truncate", "level": "token", "high": 2.0}


@pytest.mark.parametrize(
    ("changed", "wanted"),
    [
        ({}, None),
        ({"engine": "vllm"}, TRUNCATED),
        ({"compute": "bfloat16"}, TRUNCATED),
        ({"dtype": "bfloat16"}, TRUNCATED),
        ({"compute": "bfloat16", "dtype": "bfloat16"}, None),
        ({"engine": "vllm", "correction": {"kind": "none"}}, {"kind": "none"}),
        ({"correction": {}}, TRUNCATED),
        (LOOSE, TRUNCATED),
        ({**LOOSE, "correction": {"kind": "none"}}, {"kind": "none"}),
        ({"correction": {"kind": "band"}}, {"kind": "band", "level": "token", "low": 0.5, "high": 5.0}),
    ],
)
def test_a_training_makes_up_for_a_sampler_that_computes_otherwise(changed: dict[str, Any], wanted: object) -> None:
    """Unless it says what it does about it; and where both compute alike the pipeline keeps its id."""
    spec = example()
    learn = stage(spec, "learn")["config"]
    learn |= {key: changed[key] for key in ("compute", "correction") if key in changed}
    spec |= {key: changed[key] for key in ("engine", *LOOSE) if key in changed}
    spec["models"]["policy"] |= {key: changed[key] for key in ("dtype",) if key in changed}
    pipeline = Pipeline.from_dict(spec)
    assert pipeline.stage("learn").config.get("correction") == wanted
    assert Pipeline.from_canonical(pipeline.canonical()) == pipeline
    assert (pipeline.id == Pipeline.from_dict(example()).id) == (changed == {})


def test_rollouts_of_any_version_are_replayed() -> None:
    """Which version sampled what is no function of the spec, so a spec that claims nothing claims no more than that."""
    spec = example() | {"async": {"max_staleness": 2}}
    del spec["reproducibility"]
    assert Pipeline.from_dict(spec).reproducibility == "replay"


def test_several_updates_correct_by_what_the_version_that_sampled_says() -> None:
    """The pass of a later update is of another version: its ratio to the sampler would be the policy's own way too."""
    spec = example() | {"engine": "vllm"}
    stage(spec, "learn")["config"]["epochs"] = 2
    with pytest.raises(SpecError) as error:
        Pipeline.from_dict(spec)
    (problem,) = error.value.problems
    assert problem.path == "stages[4].config.correction"
    assert problem.hint == (
        "add `{id: old, op: logprob, model: policy}` before it, and read `old.logprob`; or write `kind: none`, and the "
        "loss goes by what the sampler said"
    )
    spec["stages"].insert(2, {"id": "old", "op": "logprob", "model": "policy"})
    stage(spec, "learn")["reads"] = ["roll.rollout", "adv.advantage", "old.logprob"]
    assert Pipeline.from_dict(spec).schedule.versions > Pipeline.from_dict(spec).schedule.steps


@pytest.mark.parametrize(
    ("engine", "compute", "written", "wanted"),
    [
        ("vllm", "bfloat16", None, "bfloat16"),
        ("vllm", "bfloat16", "float32", "float32"),
        ("vllm", "float32", None, "float32"),
        ("torch", "bfloat16", None, "float32"),
    ],
)
def test_an_engine_that_only_samples_does_so_in_what_the_model_is_trained_in(
    engine: str, compute: str, written: str | None, wanted: str
) -> None:
    """It has a copy of the weights in any case; float32 ones would be twice as large and no closer to the training."""
    spec = example() | {"engine": engine}
    for name in ("warm", "learn"):
        stage(spec, name)["config"]["compute"] = compute
    spec["models"]["policy"] |= {} if written is None else {"dtype": written}
    pipeline = Pipeline.from_dict(spec)
    assert pipeline.models["policy"]["dtype"] == wanted
    assert Pipeline.from_canonical(pipeline.canonical()) == pipeline
    spec["models"]["policy"]["dtype"] = wanted
    assert Pipeline.from_dict(spec).id == pipeline.id
    del spec["models"]["policy"]["dtype"]
    stage(spec, "warm")["config"]["compute"] = "float32"
    assert Pipeline.from_dict(spec).models["policy"]["dtype"] == "float32"


def test_a_correction_has_its_kinds_settings_only() -> None:
    spec = example()
    stage(spec, "learn")["config"]["correction"] = {"kind": "truncate", "low": 0.5}
    with pytest.raises(SpecError) as caught:
        Pipeline.from_dict(spec)
    (problem,) = caught.value.problems
    assert (problem.path, problem.hint) == (
        "stages[4].config.correction.low",
        "leave it out, or write `kind: mask`",
    )


@pytest.mark.parametrize(
    ("engine", "reproducibility", "prompts", "partitions", "at_once"),
    [
        ("vllm", None, 96, 12, 4),  # 64 completions a partition: four of them fill its batch of 256
        ("vllm", "fast", 96, 3, 1),  # 256 in each: nothing is gained, and nothing left for an idle node
        ("vllm", "replay", 96, 96, MOST_AT_ONCE),
        ("vllm", "exact", 96, 12, 1),
        ("torch", "fast", 96, 12, 1),
    ],
)
def test_partitions_share_a_slot_where_their_engine_fills_its_batch_by_that(
    engine: str, reproducibility: str | None, prompts: int, partitions: int, at_once: int
) -> None:
    """Where weights are a function of the spec alone they do not: what else is in a batch rounds a text otherwise."""
    spec = example() | {"reproducibility": reproducibility}
    if reproducibility is None:
        del spec["reproducibility"]
    stage(spec, "roll")["engine"] = engine
    stage(spec, "roll")["config"] |= {"prompts": prompts, "partitions": partitions}
    (chain,) = (chain for chain in plan(Pipeline.from_dict(spec), 51).chains if "roll" in chain.stages)
    assert chain.at_once == at_once


def test_a_score_by_another_engines_model_has_its_slot_for_itself() -> None:
    """On a GPU what samples leaves the device for it, and must have nothing to say then. A reward needs no device."""
    spec = example() | {"reproducibility": "replay"}
    stage(spec, "roll")["engine"] = "vllm"
    spec["models"]["reference"] = dict(spec["models"]["policy"])
    place = spec["stages"].index(stage(spec, "learn"))
    spec["stages"].insert(place, {"id": "ref", "op": "logprob", "model": "reference"})
    stage(spec, "learn")["config"]["loss"] = {"kind": "grpo", "kl": 0.1}
    (chain,) = (chain for chain in plan(Pipeline.from_dict(spec), 51).chains if "roll" in chain.stages)
    calls = [("roll",), ("score",), ("ref", "adv"), ("score", "adv")]
    assert [chain.together(call) > 1 for call in calls] == [True, True, False, True]
