"""The pipelines that worlds run: small, and with every kind of task in them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from ..pipeline.spec import Pipeline, Stage

TOY_PARTITIONS = 5
TOY_LEAVES = 4

_MODELS = {"policy": {"init": {"config": "model.json", "tokenizer": "tokenizer/"}}}
_DATA = {"words": {"reasoning_gym": "spell_backward", "held_out": {"share": 0.1, "count": 8}}}
_ADAMW = {"adamw": {"lr": 0.001}}


def _grpo(when: str | None, partitions: int, leaves: int) -> list[Stage]:
    rollout = {"data": "words", "prompts": 3 * partitions, "group": 4, "partitions": partitions, "max_tokens": 8}
    return [
        Stage("roll", "generate", model="policy", when=when, config=rollout),
        Stage("score", "reward"),
        Stage("adv", "advantage", config={"drop_flat_groups": True}),
        Stage("learn", "train", model="policy", config={"leaves": leaves, "optimizer": _ADAMW}),
        Stage("held", "evaluate", model="policy", when=when, config={"data": "words.held_out", "partitions": 2}),
    ]


def _profile(range_bytes: int, at_once: int) -> dict[str, float]:
    told = {"range_bytes": range_bytes, "at_once": at_once if at_once > 1 else 0}
    return {name: value for name, value in told.items() if value}


@cache
def two_steps(
    partitions: int = TOY_PARTITIONS,
    leaves: int = TOY_LEAVES,
    on_poison: str = "fail",
    range_bytes: int = 0,
    at_once: int = 1,
) -> Pipeline:
    """Two steps of GRPO, evaluated at each version. `range_bytes`: of parameters in a shard, if fewer than usual;
    `at_once`: partitions that one slot works on together."""
    return Pipeline(
        name="toy",
        steps=2,
        models=_MODELS,
        data=_DATA,
        stages=_grpo(None, partitions, leaves),
        on_poison=on_poison,
        engine="emulated",
        emulated=_profile(range_bytes, at_once),
    )


@cache
def warm_then_two(every: int = 0, range_bytes: int = 0, at_once: int = 1) -> Pipeline:
    """Two supervised updates, then two of GRPO with an optimizer of their own. `every`: steps between checkpoints."""
    batch = {"data": "words", "demos": 64, "batch": 12, "partitions": 3, "leaves": 2, "optimizer": _ADAMW}
    warm = Stage("warm", "sft", model="policy", when="step < 2", config=batch)
    stages = [warm, *_grpo("step >= 2", TOY_PARTITIONS, TOY_LEAVES)]
    return Pipeline(
        name="warm",
        steps=4,
        models=_MODELS,
        data=_DATA,
        stages=stages,
        checkpoint={"every": every, "keep": 2},
        engine="emulated",
        emulated=_profile(range_bytes, at_once),
    )


@cache
def two_models() -> Pipeline:
    """An update of one model, then two of another that starts alike and was sampled from meanwhile."""
    batch = {"data": "words", "demos": 64, "batch": 12, "partitions": 3, "leaves": 2, "optimizer": _ADAMW}
    warm = Stage("warm", "sft", model="judge", when="step < 1", config=batch)
    return Pipeline(
        name="pair",
        steps=3,
        models={name: dict(config) for name in ("judge", "policy") for config in _MODELS.values()},
        data=_DATA,
        stages=[warm, *_grpo("step >= 1", TOY_PARTITIONS, TOY_LEAVES)],
        engine="emulated",
    )


ROLE = "judge"  # a word that nodes may offer


def with_sizes(pipeline: Pipeline, steps: int, partitions: int, leaves: int) -> Pipeline:
    """The same of another size: so many steps, and in those of GRPO so many partitions and leaves."""
    stages = [stage for stage in pipeline.stages if stage.id == "warm"]
    when = pipeline.stage("roll").when
    assert not isinstance(when, bool), "it is an expression, or there is none"
    return replace(pipeline, steps=steps, stages=[*stages, *_grpo(when, partitions, leaves)])


def with_lag(pipeline: Pipeline, lag: int) -> Pipeline:
    """The same, but that rollouts are so many steps behind."""
    return replace(pipeline, lag=lag)


def with_async(pipeline: Pipeline, max_staleness: int) -> Pipeline:
    """The same, but that rollouts are of whatever version their sampler has, at most so many behind."""
    return replace(pipeline, reproducibility="replay", asynchrony={"max_staleness": max_staleness})


def with_segments(pipeline: Pipeline, max_staleness: int) -> Pipeline:
    """The same, but that rollouts are of whatever version there is, each of three segments of its own."""
    loose = {"max_staleness": max_staleness, "partial": True, "segment_tokens": 3}
    return replace(pipeline, reproducibility="replay", asynchrony=loose)


def with_role(pipeline: Pipeline) -> Pipeline:
    """The same, but that rewards are given only where ROLE is offered."""
    return replace(
        pipeline,
        stages=[replace(stage, requires=(ROLE,)) if stage.id == "score" else stage for stage in pipeline.stages],
    )


def with_reference(pipeline: Pipeline) -> Pipeline:
    """The same, but that a model that stays as it is scores what was sampled, in a call of its own."""
    reference = Stage("ref", "logprob", model="reference")
    stages = [each for stage in pipeline.stages for each in ((stage, reference) if stage.id == "roll" else (stage,))]
    return replace(pipeline, models={**pipeline.models, "reference": {"path": "start"}}, stages=stages)


def with_kept_reference(pipeline: Pipeline, at: int) -> Pipeline:
    """The same, but that what is sampled is scored by the policy as a step began with it."""
    pipeline = with_reference(pipeline)
    reference = {"version_of": "policy", "at": at}
    return replace(pipeline, models={**pipeline.models, "reference": reference})


def with_old_policy(pipeline: Pipeline) -> Pipeline:
    """The same, but that the model that samples scores what it said, in a call of its own."""
    old = Stage("old", "logprob", model="policy")
    stages = [each for stage in pipeline.stages for each in ((stage, old) if stage.id == "roll" else (stage,))]
    stages = [replace(each, reads=(*each.reads, "old.logprob")) if each.id == "learn" else each for each in stages]
    return replace(pipeline, stages=stages)


def with_whitening(pipeline: Pipeline) -> Pipeline:
    """The same, but that advantages are whitened by those of the whole step."""
    return replace(
        pipeline,
        stages=[
            replace(stage, config={**stage.config, "whiten": True}) if stage.operator.compares else stage
            for stage in pipeline.stages
        ],
    )


def with_adaptive_kl(pipeline: Pipeline) -> Pipeline:
    """The same, but that a reference scores, and the weights of the divergence from it, in the reward and in the loss,
    follow it."""
    kl = {"kl": 0.05, "kl_target": 0.1, "kl_horizon": 200}
    stages = [
        replace(stage, config={**stage.config, **kl, "scale": "none"}, reads=())
        if stage.operator.compares
        else replace(stage, config={**stage.config, "loss": {**stage.config["loss"], **kl}}, reads=())
        if stage.id == "learn"
        else stage
        for stage in pipeline.stages
    ]
    stages.insert([stage.id for stage in stages].index("adv"), Stage("ref", "logprob", model="reference"))
    reference = {key: value for key, value in pipeline.models["policy"].items() if key != "lora"}
    return replace(pipeline, models={**pipeline.models, "reference": reference}, stages=stages)


def with_rounds(pipeline: Pipeline, until: float, most: int) -> Pipeline:
    """The same, but that a step of GRPO samples again until so many groups are trained on."""
    rounds = {"until": until, "max": most}
    return replace(
        pipeline,
        stages=[replace(stage, rounds=rounds) if stage.operator.compares else stage for stage in pipeline.stages],
    )


def with_bfloat16(pipeline: Pipeline) -> Pipeline:
    """The same, but that its gradients are bfloat16."""
    return replace(
        pipeline,
        stages=[
            replace(stage, config={**stage.config, "gradient": "bfloat16"}) if stage.operator.trains else stage
            for stage in pipeline.stages
        ],
    )


def with_adapters(pipeline: Pipeline) -> Pipeline:
    """The same, but that versions hold adapters of its models, each in one shard, and name their bases."""
    lora = {"rank": 8, "alpha": 16}
    models = {name: {**model, "lora": lora} for name, model in pipeline.models.items()}
    return replace(pipeline, models=models, engine="torch", emulated={})  # an emulated model has no base


def with_updates(pipeline: Pipeline, epochs: int, minibatches: int) -> Pipeline:
    """The same, but that a step of GRPO makes several updates, and every other one trains another model before, on what
    the same step gave."""
    several = {"epochs": epochs, "minibatches": minibatches}
    stages = [replace(s, config={**s.config, **several}) if s.id == "learn" else s for s in pipeline.stages]
    roll = pipeline.stage("roll")
    when = f"({roll.when or 'True'}) and step % 2 == 0"
    other = Stage("other", "train", model="other", when=when, config={"leaves": 1, "optimizer": _ADAMW})
    stages.insert([stage.id for stage in stages].index("learn"), other)
    return replace(pipeline, models={**pipeline.models, "other": dict(pipeline.models["policy"])}, stages=stages)


@cache
def several_updates() -> Pipeline:
    """Two steps of GRPO, of five updates and of four."""
    return with_updates(two_steps(), epochs=2, minibatches=2)


@cache
def actor_critic() -> Pipeline:
    """Three steps in which a critic scores what was sampled and is trained twice on it, before the policy is trained on
    two mini-batches, but for the second step, which trains the critic alone."""
    pipeline = two_steps()
    learning = {"leaves": TOY_LEAVES, "optimizer": _ADAMW}
    stages = [
        pipeline.stage("roll"),
        Stage("score", "reward"),
        Stage("value", "value", model="critic"),
        Stage("adv", "advantage", config={"method": "gae"}),
        Stage("critic", "train", model="critic", config={**learning, "epochs": 2, "loss": {"kind": "value"}}),
        Stage("learn", "train", model="policy", when="step != 1", config={**learning, "minibatches": 2}),
        pipeline.stage("held"),
    ]
    critic = {**pipeline.models["policy"], "head": "value"}
    return replace(pipeline, steps=3, models={**pipeline.models, "critic": critic}, stages=stages)


@cache
def two_policies() -> Pipeline:
    """Two steps in which one model replies to another, each of them trained on what it said itself."""
    pipeline = two_steps()
    own = ["roll.rollout", "ours.advantage"]
    learning = {"leaves": TOY_LEAVES, "optimizer": _ADAMW}
    stages = [
        pipeline.stage("roll"),
        Stage("answer", "reply", model="other", config={"max_tokens": 4}),
        Stage("score", "reward"),
        Stage("adv", "advantage", config={"drop_flat_groups": True}),
        Stage("theirs", "train", model="other", config=learning),
        Stage("ours", "advantage", reads=["roll.rollout", "score.reward"]),
        Stage("learn", "train", model="policy", reads=own, config=learning),
    ]
    return replace(pipeline, models={**pipeline.models, "other": dict(pipeline.models["policy"])}, stages=stages)
