"""Defaults that follow from other stages, and the checks that need more than one key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .entries.mixing import held_out_count, sets_in
from .entries.settings import check_dropped
from .grammar.algorithms import KL_HORIZON, loss_named, truncated
from .grammar.engines import ENGINES
from .grammar.problem import Problem, suggest
from .grammar.scoring import BY_ENVIRONMENT, SCORING
from .grammar.signatures import (
    DEFAULT_REWARD,
    Beginning,
    Operator,
    is_corrected,
    method_of,
    operator_of,
    updates_of,
)
from .graph import Vertex, chains_of

DEFAULT_PARTITIONS = 8
DEFAULT_MAX_LEAVES = 64


def fill(spec: dict[str, Any], vertices: Sequence[Vertex]) -> list[Problem]:
    """Fill what is still None in the stages' configs, and check the numbers against each other."""
    stages = {vertex.id: (stage, vertex) for stage, vertex in zip(spec["stages"], vertices, strict=True)}
    problems: list[Problem] = []
    _dtypes(spec)
    for stage, vertex in stages.values():
        found = list(_check_data(spec, stage, vertex))
        if vertex.operator.evaluates and not found:
            found.extend(_evaluate(spec, stage, vertex))
        if vertex.operator.begins is not None and not found:
            found.extend(_partitions(stage, vertex, vertex.operator.begins))
        problems.extend(found)
    problems.extend(check_dropped(spec, [vertex.place for vertex in vertices]))
    if problems:
        return problems
    roots = {name: stages[group[0]] for group in chains_of(vertices) for name in group}
    for stage, vertex in stages.values():
        if vertex.operator.scores or vertex.operator.methods:
            problems.extend(_earned(stage, vertex, stages[_rollout_of(vertex) or vertex.id][0]["config"]))
        problems.extend(_of_one_rollout(vertex, stages))
        if vertex.operator.methods:
            problems.extend(_referenced(stage, vertex, stages))
        problems.extend(_adaptive(spec, stage, vertex))
        if vertex.operator.trains is None:
            continue
        root, began = roots[vertex.id if vertex.operator.is_on_partitions else vertex.sources[0]]
        if began.operator.begins is not None:
            problems.extend(_leaves(stage, vertex, root["config"], began.operator.begins))
        if "loss" in stage["config"]:
            problems.extend(_preferred(stage, vertex, stages))
            models = {name: other["model"] for name, (other, _) in stages.items()}
            problems.extend([*_scored(stage, vertex, models), *_paired(stage, vertex, stages)])
            sampler, made = stages[str(_rollout_of(vertex))]
            may_differ = made.operator.samples and is_corrected(vertex.operator, stage["config"])
            if "correction" not in stage["config"] and may_differ:
                is_other = bool(spec["async"]) or _differ(spec, sampler, stage)
                stage["config"].update({"correction": truncated()} if is_other else {})
            problems.extend(_behind(stage, vertex, models))
    return problems


def _dtypes(spec: dict[str, Any]) -> None:
    """What a model samples and scores in. An engine that only samples has a copy of the weights anyway, so it has them
    in what they are trained in; one that trains as well would have a second."""
    for name, model in spec["models"].items():
        if model["dtype"] is not None:
            continue
        own = [(stage, operator_of(stage["op"])) for stage in spec["stages"] if stage["model"] == name]
        is_served = any(op.samples and ENGINES[stage.get("engine") or spec["engine"]].samples_only for stage, op in own)
        trained = {stage["config"].get("compute", "float32") for stage, op in own if op.trains}
        model["dtype"] = trained.pop() if is_served and len(trained) == 1 else "float32"


def _differ(spec: Mapping[str, Any], sampler: Mapping[str, Any], training: Mapping[str, Any]) -> bool:
    """Whether a stage samples by another engine or in another dtype than a training computes its tokens in."""
    sampled = sampler.get("engine"), spec["models"][sampler["model"]].get("dtype", "float32")
    return sampled != (training.get("engine"), training["config"].get("compute", "float32"))


def _scored(stage: dict[str, Any], vertex: Vertex, models: Mapping[str, str | None]) -> Iterator[Problem]:
    """A training reads log-probabilities of its own model, of a reference, or of both: their models tell."""
    scored = [read.partition(".")[0] for read in vertex.reads if read.endswith(".logprob")]
    own = [name for name in scored if models[name] == stage["model"]]
    references = [name for name in scored if name not in own]
    for kind, names in (("the trained model", own), ("a reference", references)):
        if len(names) > 1:
            what = f"stage `{vertex.id}` reads `{names[0]}.logprob` and `{names[1]}.logprob`, both of {kind}"
            yield Problem(f"{vertex.place}.reads", what, "keep one of them")
    if stage["config"]["loss"].get("kl", 0.0) > 0 and not references:
        what = f"stage `{vertex.id}`: `kl` is the distance from another model, and `{own[0]}` scores by the trained one"
        yield Problem(f"{vertex.place}.config.loss.kl", what, "read a `logprob` stage of another model under `models`")
    if _is_of_pairs(stage) and not references:
        what = f"stage `{vertex.id}`: preferences are held near another model, and `{own[0]}` scores by the trained one"
        yield Problem(f"{vertex.place}.reads", what, "read a `logprob` stage of another model under `models`")


def _is_of_pairs(stage: Mapping[str, Any]) -> bool:
    """Whether a policy learns from pairs; a reward model takes all of a group's."""
    loss = loss_named(str(stage["config"]["loss"].get("kind") or ""))
    return loss is not None and loss.is_of_pairs and not loss.head


def _paired(
    stage: dict[str, Any], vertex: Vertex, stages: Mapping[str, tuple[dict[str, Any], Vertex]]
) -> Iterator[Problem]:
    """A loss of pairs is told who was chosen; a stage of the user's own may say it as well."""
    writer = next((stages[read.partition(".")[0]] for read in vertex.reads if read.endswith(".advantage")), None)
    if writer is None or not _is_of_pairs(stage):
        return
    chooser, made = writer
    method = method_of(made.operator, chooser["config"])
    if method is not None and not method.makes_pairs:
        what = f"stage `{vertex.id}` learns from pairs, and `{made.id}` gives every completion an advantage"
        yield Problem(f"{vertex.place}.config.loss.kind", what, f"write `method: pairs` in `{made.id}`")


def _preferred(
    stage: dict[str, Any], vertex: Vertex, stages: Mapping[str, tuple[dict[str, Any], Vertex]]
) -> Iterator[Problem]:
    """Nobody knows how likely answers of a data set were to who wrote them: they are learnt from as pairs."""
    maker = stages[str(_rollout_of(vertex))][1]
    loss = loss_named(str(stage["config"]["loss"].get("kind") or "grpo"))
    if maker.operator.prefers and loss is not None and not loss.is_of_pairs:
        what = f"stage `{vertex.id}` learns from `{maker.id}`, whose answers nobody sampled"
        yield Problem(f"{vertex.place}.config.loss.kind", what, "write `loss: {kind: dpo}`")


def _rollout_of(vertex: Vertex) -> str | None:
    """The stage whose rollout it reads first; None: it reads none."""
    return next((read.partition(".")[0] for read in vertex.reads if read.endswith(".rollout")), None)


def _of_one_rollout(vertex: Vertex, stages: Mapping[str, tuple[dict[str, Any], Vertex]]) -> Iterator[Problem]:
    """Where one model replies to another, what is said of the one's tokens is not the other's. A reward is a number a
    completion, and may be for what came of it."""
    rollout = _rollout_of(vertex)
    for read in vertex.reads if vertex.is_built_in and rollout is not None else ():
        source, _, output = read.partition(".")
        of = _rollout_of(stages[source][1])
        if output not in ("rollout", vertex.operator.compares) and of not in (None, rollout):
            what = f"stage `{vertex.id}` reads `{rollout}.rollout`, and `{read}` is of `{of}.rollout`"
            hint = f"name what belongs together in its `reads`, such as `{of}.rollout` with `{read}`"
            yield Problem(f"{vertex.place}.reads", what, hint)


def _referenced(
    stage: dict[str, Any], vertex: Vertex, stages: Mapping[str, tuple[dict[str, Any], Vertex]]
) -> Iterator[Problem]:
    """A reward less the distance from a reference, which is another model than the one that sampled."""
    sources = {read.partition(".")[2]: stages[read.partition(".")[0]][0] for read in vertex.reads}
    scored = sources.get("logprob")
    if scored is not None and scored["model"] == sources["rollout"]["model"]:
        what = f"stage `{vertex.id}`: `kl` is the distance from another model, and `{scored['id']}` scores by the one "
        hint = "read a `logprob` stage of another model under `models`"
        yield Problem(f"{vertex.place}.config.kl", f"{what}that sampled", hint)


def _adaptive(spec: Mapping[str, Any], stage: dict[str, Any], vertex: Vertex) -> Iterator[Problem]:
    """A weight that follows its divergence: at 0 it would stay there, and what is done before a version is made cannot
    go by what that settles."""
    config, path = stage["config"], f"{vertex.place}.config"
    trains = vertex.operator.trains is not None
    if trains:
        config, path = config.get("loss", {}), f"{path}.loss"
    if not (trains or vertex.operator.methods):
        return
    if config.get("kl_target") is None:
        if config.get("kl_horizon", KL_HORIZON) != KL_HORIZON:
            what = f"stage `{vertex.id}`: `kl_horizon` says how fast `kl` follows a target, and there is none"
            yield Problem(f"{path}.kl_horizon", what, "write the divergence to keep: `kl_target: 0.02`")
        return
    name = f"stage `{vertex.id}`: `kl_target`"
    if not config.get("kl"):
        yield Problem(f"{path}.kl_target", f"{name} moves `kl`, and that is 0", "write where it begins: `kl: 0.05`")
    if spec["lag"] and not trains:
        what = f"{name} is of the newest version, and with `lag` rewards are given before that is made"
        yield Problem(f"{path}.kl_target", what, "have `kl` in the loss, or leave `lag` out")


def _behind(stage: dict[str, Any], vertex: Vertex, models: Mapping[str, str | None]) -> Iterator[Problem]:
    """After the first update of a step the trained model is another one than sampled: what that says of its tokens, as
    training computes it, has to be asked before."""
    kind = (stage["config"].get("correction") or {}).get("kind", "none")
    scored = [read.partition(".")[0] for read in vertex.reads if read.endswith(".logprob")]
    if kind != "none" and updates_of(stage["config"]) > 1 and stage["model"] not in [models[name] for name in scored]:
        what = f"stage `{vertex.id}` makes several updates a step, and corrects for a sampler that computes otherwise"
        hint = f"add `{{id: old, op: logprob, model: {stage['model']}}}` before it, and read `old.logprob`; "
        hint += "or write `kind: none`, and the loss goes by what the sampler said"
        yield Problem(f"{vertex.place}.config.correction", what, hint)


def _check_data(spec: dict[str, Any], stage: dict[str, Any], vertex: Vertex) -> Iterator[Problem]:
    if "data" not in stage["config"]:
        return
    name, dot, _ = stage["config"]["data"].partition(".")
    path = f"{vertex.place}.config.data"
    if name not in spec["data"]:
        yield Problem(path, f"stage `{vertex.id}`: there is no data `{name}`", suggest(name, spec["data"], "data"))
    elif dot and held_out_count(spec["data"], name) is None:
        what = f"stage `{vertex.id}`: `{name}` holds nothing out"
        sets = sets_in(spec["data"], name)
        which = f"`data.{name}`" if sets == (name,) else "one of the data sets that it mixes"
        yield Problem(path, what, f"add `held_out: {{share: 0.1, count: 500}}` to {which}")
    for part in sets_in(spec["data"], name) if vertex.operator.prefers else ():
        if spec["data"][part].get("rejected") is None:
            what = f"stage `{vertex.id}`: the rows of `{part}` have one answer each"
            is_of_rows = "answer" in spec["data"][part]
            how = f"name the key of the worse one: `rejected: KEY` in `data.{part}`"
            yield Problem(path, what, how if is_of_rows else "take rows of a file, which say a worse one by `rejected`")


def _evaluate(spec: dict[str, Any], stage: dict[str, Any], vertex: Vertex) -> Iterator[Problem]:
    config = stage["config"]
    path = f"{vertex.place}.config"
    name, dot, _ = config["data"].partition(".")
    held_out = held_out_count(spec["data"], name) if dot else None
    if config["count"] is None:
        if held_out is None:
            yield Problem(
                f"{path}.count", f"stage `{vertex.id}`: `count` is missing", "say how many prompts to evaluate"
            )
            return
        config["count"] = held_out
    elif held_out is not None and config["count"] > held_out:
        what = f"stage `{vertex.id}`: `count` is {config['count']}, but {held_out} are held out"
        yield Problem(f"{path}.count", what, f"lower it, or raise `data.{name}.held_out.count`")
    sampled = [
        other["config"]
        for other in spec["stages"]
        if "rollout" in operator_of(other["op"]).writes and other["model"] == stage["model"]
    ]
    if config["max_tokens"] is None:
        if not sampled:
            yield Problem(f"{path}.max_tokens", f"stage `{vertex.id}`: `max_tokens` is missing", "say when to cut off")
            return
        config["max_tokens"] = max(other["max_tokens"] for other in sampled)
    yield from _stop(config, [other.get("stop", []) for other in sampled], vertex)
    yield from _environment(config, [other.get("environment") for other in sampled], vertex)
    if config["function"] is None:
        scoring = [other for other in spec["stages"] if _is_function(operator_of(other["op"]))]
        rewards = [other["config"] for other in scoring]
        if any(other != rewards[0] for other in rewards):
            names = " and ".join(f"`{other['id']}`" for other in scoring)
            what = f"stage `{vertex.id}`: {names} are rewards, and `function` says not which one it measures"
            yield Problem(f"{path}.function", what, f"such as `function: {rewards[0]['function']}`")
            return
        config["function"] = rewards[0]["function"] if rewards else DEFAULT_REWARD
        config["args"] = config["args"] or (dict(rewards[0]["args"]) if rewards else {})
        config.update({key: rewards[0][key] for key in SCORING if rewards and key in rewards[0] and key not in config})
    config["args"] = config["args"] or {}


def _is_function(operator: Operator) -> bool:
    """Whether its stages reward by a function, which an evaluation may call as well."""
    return operator.scores and "reward" in operator.writes


def _stop(config: dict[str, Any], trained: list[list[str]], vertex: Vertex) -> Iterator[Problem]:
    """What is evaluated ends as what is trained does. The key is written only where one of them has stop texts."""
    if "stop" not in config and any(trained):
        if any(texts != trained[0] for texts in trained):
            what = f"stage `{vertex.id}`: `stop` is missing, and the `generate` stages of its model differ in theirs"
            yield Problem(f"{vertex.place}.config.stop", what, "say which texts end a completion here")
        config["stop"] = list(trained[0])
    if "stop" in config and not config["stop"] and not any(trained):
        del config["stop"]


def _environment(config: dict[str, Any], trained: list[Any], vertex: Vertex) -> Iterator[Problem]:
    """Who answers is who answers in training. The key is written only where one of them has an environment."""
    if "environment" in config or not any(trained):
        return
    if any(other != trained[0] for other in trained):
        what = f"stage `{vertex.id}`: `environment` is missing, and the `generate` stages of its model differ in theirs"
        yield Problem(f"{vertex.place}.config.environment", what, "say who answers here")
    config["environment"] = trained[0]


def _earned(stage: Mapping[str, Any], vertex: Vertex, maker: Mapping[str, Any]) -> Iterator[Problem]:
    """What an environment gives is there only where one is. `maker`: the config of the stage that samples."""
    if stage["config"].get("function") == BY_ENVIRONMENT and maker.get("environment") is None:
        what = f"stage `{vertex.id}`: `{BY_ENVIRONMENT}` is what an environment gives, and there is none"
        hint = "write `environment` in the stage that samples, or judge by another function"
        yield Problem(f"{vertex.place}.config.function", what, hint)
    method = method_of(vertex.operator, stage["config"])
    if method is not None and method.is_of_turns and maker.get("environment") is None:
        what = f"stage `{vertex.id}`: `{stage['config']['method']}` goes by what an environment gives for each turn"
        yield Problem(f"{vertex.place}.config.method", what, "write `environment` in the stage that samples")


def _partitions(stage: dict[str, Any], vertex: Vertex, begins: Beginning) -> Iterator[Problem]:
    config = stage["config"]
    key, pool = begins.groups, begins.entries
    size = config[key]
    path = f"{vertex.place}.config.partitions"
    if config["partitions"] is None:
        wanted = -(-size // begins.groups_each) if begins.groups_each else DEFAULT_PARTITIONS
        config["partitions"] = min(size, wanted)
    if config["partitions"] > size:
        what = f"stage `{vertex.id}`: {config['partitions']} partitions for {size} {key}"
        yield Problem(path, what, f"`partitions` is at most `{key}`")
    if size > config[pool]:
        what = f"stage `{vertex.id}`: a {key} of {size} from {config[pool]} {pool}"
        yield Problem(f"{vertex.place}.config.{key}", what, f"`{key}` is at most `{pool}`")


def _leaves(stage: dict[str, Any], vertex: Vertex, root: dict[str, Any], begins: Beginning) -> Iterator[Problem]:
    """`root`: the config of the stage that began what it trains on."""
    config = stage["config"]
    if config["leaves"] is None:
        most = min(root["partitions"], DEFAULT_MAX_LEAVES)
        config["leaves"] = 1 << (most.bit_length() - 1)
    leaves, groups = config["leaves"], root[begins.groups]
    path = f"{vertex.place}.config.leaves"
    if leaves & (leaves - 1):
        near = 1 << (leaves.bit_length() - 1)
        what = f"stage `{vertex.id}`: `leaves` is {leaves}, which is no power of two"
        yield Problem(path, what, f"use {near} or {2 * near}")
    elif leaves > groups:
        what = f"stage `{vertex.id}`: {leaves} leaves for {groups} groups"
        yield Problem(path, what, "every leaf needs a group: use fewer leaves")
