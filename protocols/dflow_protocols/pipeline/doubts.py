"""Doubts: what a pipeline can run and probably does not mean, as far as the spec alone shows it.

A doubt stops nothing: clients tell it before a run is submitted, when a night has not been spent yet.
"""

from __future__ import annotations

from collections.abc import Iterator

from .entries.mixing import sets_in
from .grammar.problem import Problem
from .grammar.signatures import method_of
from .spec import Pipeline, Stage

COLD = 0.1  # temperature: a token of half the likeliest one's probability is drawn once in a thousand times


def doubts(pipeline: Pipeline) -> Iterator[Problem]:
    """Every doubt, those of models first, then by the stages' order; paths as in a Problem of validation."""
    read = {name for stage in pipeline.stages for name in stage.reads}
    methods = [method_of(stage.operator, stage.config) for stage in pipeline.stages]
    is_rewarded = all(method is None or method.is_rewarded for method in methods)
    yield from _unasked(pipeline)
    for index, stage in enumerate(pipeline.stages):
        yield from _timing(pipeline, stage, f"stages[{index}]")
        if is_rewarded and "reward" in stage.writes and f"{stage.id}.reward" not in read:
            yield _unread(pipeline, stage, f"stages[{index}]")
        if "advantage" in stage.writes and f"{stage.id}.advantage" not in read:
            what = f"nothing reads the advantage of `{stage.id}`: nothing is trained by it"
            hint = f"place it before what trains, or write `reads: [{stage.id}.advantage]` there"
            yield Problem(f"stages[{index}]", what, hint)
        if "kept" in stage.writes and f"{stage.id}.kept" not in read:
            what = f"nothing reads what `{stage.id}` keeps: it leaves nothing out"
            hint = "place it before an `advantage` stage of the same rollout, or have a stage of your own read `kept`"
            yield Problem(f"stages[{index}]", what, hint)
        if "rollout" in stage.operator.writes and stage.operator.samples and not stage.operator.continues:
            yield from _sampling(stage, f"stages[{index}]")
            yield from _groups(pipeline, stage, f"stages[{index}].config")
        if stage.operator.compares and not any((stage.config.get("rewards") or {"": 1.0}).values()):
            what = f"stage `{stage.id}`: all weights are 0, so nothing is rewarded"
            yield Problem(f"stages[{index}].config.rewards", what, "give one of them another weight")
        if _blows_up(stage):
            what = f"stage `{stage.id}`: a group of like rewards differs in its `kl`, and `scale: std` blows that up"
            hint = "add `drop_flat_groups: true`, write `scale: none`, or have `kl` in the loss"
            yield Problem(f"stages[{index}].config.kl", what, hint)
        if stage.rounds is not None and not _drops(stage):
            what = f"stage `{stage.id}` drops no groups, so its rounds are always as many"
            yield Problem(f"stages[{index}].rounds", what, "add `drop_flat_groups: true`, or a `filter` before it")
        if stage.operator.trains is not None:
            yield from _training(stage, f"stages[{index}].config")
            yield from _of_another(pipeline, stage, f"stages[{index}].reads")
        if stage.operator.evaluates:
            yield from _evaluation(stage, f"stages[{index}]")
            yield from _seen(pipeline, stage, f"stages[{index}].config.data")


def _unasked(pipeline: Pipeline) -> Iterator[Problem]:
    """Models that are an earlier version of another one, for no stage."""
    asked = {stage.model for stage in pipeline.stages if stage.operator.evaluates or pipeline.schedule.runs(stage.id)}
    for name, kept in pipeline.kept.items():
        if name not in asked:
            what = f"no stage asks `{name}`, and each version carries these parameters of `{kept.model}` along"
            yield Problem(f"models.{name}", what, f"name it in a stage, `model: {name}`, or leave it out")


def _timing(pipeline: Pipeline, stage: Stage, place: str) -> Iterator[Problem]:
    """A stage that runs less than it says. Those that read from one that never runs are not told as well."""
    schedule, steps = pipeline.schedule, pipeline.schedule.steps
    runs = schedule.runs(stage.id)
    is_run = not stage.operator.evaluates  # which is done on the final version in any case
    if not runs and is_run and all(schedule.runs(read.partition(".")[0]) for read in stage.reads):
        what = f"stage `{stage.id}` runs at none of the {steps} steps"
        yield Problem(f"{place}.when", what, "mend its `when`, or `steps`, unless it is meant to be passed over")
    elif stage.every >= steps > 1 and is_run:
        what = f"stage `{stage.id}` runs once: `every` is {stage.every}, of {steps} steps"
        yield Problem(f"{place}.every", what, "lower it")
    ramp = stage.config["optimizer"]["adamw"]["ramp_steps"] if stage.operator.trains is not None else 0
    if runs and ramp > runs:
        what = f"stage `{stage.id}` never reaches its `lr`: `ramp_steps` is {ramp}, and it makes {runs} updates"
        yield Problem(
            f"{place}.config.optimizer.adamw.ramp_steps", what, "lower it, such as by an expression of params"
        )


def _groups(pipeline: Pipeline, stage: Stage, place: str) -> Iterator[Problem]:
    """Groups whose completions cannot differ in their rewards, where they are compared with each other."""
    rollout = f"{_last_segment(pipeline, stage).id}.rollout"
    compared = next((other.id for other in pipeline.stages if rollout in other.reads and _compares(other)), None)
    if compared is None:
        return
    if stage.config.get("group") == 1:
        what = f"stage `{stage.id}`: `{compared}` compares the completions of a group, and a group of 1 teaches nothing"
        yield Problem(f"{place}.group", what, "sample more completions of each prompt: 8 is usual")
    elif stage.config["temperature"] < COLD:
        what = (
            f"stage `{stage.id}`: at `temperature` {stage.config['temperature']:g} the completions of a group are alike"
        )
        yield Problem(f"{place}.temperature", what, "what is alike gets no advantage: 1.0 is usual")


def _last_segment(pipeline: Pipeline, stage: Stage) -> Stage:
    """The stage that writes the whole of the rollout that `stage` begins."""
    after = (other for other in pipeline.stages if other.operator.continues and f"{stage.id}.rollout" in other.reads)
    following = next(after, None)
    return stage if following is None else _last_segment(pipeline, following)


def _drops(stage: Stage) -> bool:
    """Whether a stage that has rounds leaves groups out that it is given, or heeds one that does."""
    drops = any(stage.config.get(key) for key in ("drop_flat_groups", "mask_truncated"))
    return stage.operator.sifts or drops or any(read.endswith(".kept") for read in stage.reads)


def _blows_up(stage: Stage) -> bool:
    """Whether what completions pay may be all that a group is compared by, over its deviation."""
    config = stage.config
    is_scaled = bool(stage.operator.methods and config.get("kl")) and config.get("scale") == "std"
    return is_scaled and not config["drop_flat_groups"]


def _compares(stage: Stage) -> bool:
    method = method_of(stage.operator, stage.config)
    return method is not None and method.compares


def _training(stage: Stage, place: str) -> Iterator[Problem]:
    adamw = stage.config["optimizer"]["adamw"]
    shrunk = adamw["lr"] * adamw["weight_decay"]
    if shrunk >= 1:
        what = (
            f"stage `{stage.id}`: `lr` times `weight_decay` is {shrunk:g}: one update takes all weights to zero or past"
        )
        yield Problem(f"{place}.optimizer.adamw.weight_decay", what, "lower it: 0.01 to 0.1 is usual")
    below, above = stage.config.get("loss", {}).get("clip", (0.2, 0.28))
    usual = "leave it out: 0.2 and 0.28 are usual"
    if not below or not above:
        what = f"stage `{stage.id}`: a `clip` of 0 cuts the gain of every token whose probability moved that way"
        yield Problem(f"{place}.loss.clip", what, usual)
    if below >= 1:
        what = f"stage `{stage.id}`: a `clip` of {below:g} below 1 cuts nothing: no ratio of probabilities is negative"
        yield Problem(f"{place}.loss.clip", what, usual)


def _of_another(pipeline: Pipeline, stage: Stage, path: str) -> Iterator[Problem]:
    """A policy that is trained on what another model said, though it speaks itself."""
    own = [other for other in pipeline.stages if other.operator.samples and other.model == stage.model]
    spoken = [f"{other.id}.rollout" for other in own if "rollout" in other.writes]
    read = next((read for read in stage.reads if read.endswith(".rollout")), None)
    if spoken and read is not None and read not in spoken:
        what = f"stage `{stage.id}` trains model `{stage.model}` on `{read}`, which another model said"
        yield Problem(path, what, f"name what it said itself: `reads: [{spoken[0]}, ...]` with its advantage")


def _seen(pipeline: Pipeline, stage: Stage, path: str) -> Iterator[Problem]:
    name = stage.config["data"]
    sets = {*sets_in(pipeline.data, name)}
    others = [s for s in pipeline.stages if not s.operator.evaluates]
    trained = next((s.id for s in others if not sets.isdisjoint(sets_in(pipeline.data, _data(s)))), None)
    if trained is not None:
        what = f"stage `{stage.id}` evaluates `{name}`, which `{trained}` trains on"
        yield Problem(path, what, f"hold a share of it out, and evaluate `{name}.held_out`")


def _data(stage: Stage) -> str:
    return str(stage.config.get("data", ""))


def _sampling(stage: Stage, place: str) -> Iterator[Problem]:
    if stage.config["top_p"] < 1:
        what = f"stage `{stage.id}`: `top_p` {stage.config['top_p']:g} samples from another policy than the one trained"
        hint = "training takes the full vocabulary's probabilities: leave `top_p` out unless the bias is meant"
        yield Problem(f"{place}.config.top_p", what, hint)


def _evaluation(stage: Stage, place: str) -> Iterator[Problem]:
    for key in ("temperature", "top_p") if stage.config["greedy"] else ():
        if stage.config[key] != 1:
            what = f"stage `{stage.id}`: `{key}` {stage.config[key]:g} changes nothing: it takes the likeliest tokens"
            yield Problem(f"{place}.config.{key}", what, f"add `greedy: false`, or leave `{key}` out")


def _unread(pipeline: Pipeline, stage: Stage, place: str) -> Problem:
    reader = next((other for other in pipeline.stages if other.operator.compares), None)
    names = {other.id: 1.0 for other in pipeline.stages if "reward" in other.writes}
    weights = ", ".join(f"{name}: {weight}" for name, weight in names.items())
    where = f"in the config of `{reader.id}`" if reader is not None else "in the config of an `advantage` stage"
    what = f"nothing reads the reward of `{stage.id}`: it is measured, and not trained on"
    return Problem(place, what, f"{where}, `rewards: {{{weights}}}` adds them up (weight 0: only measured)")
