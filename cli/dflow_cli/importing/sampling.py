"""Stages that make and judge completions, of siiRL's nodes that do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dflow_protocols.pipeline.grammar.algorithms import ADVANTAGES

from .context import ACTOR, Context
from .draft import FILLED_IN, LEFT_OUT, NO_TWIN, TO_DO
from .kinds import Kind
from .siirl.workflow import Node

Stage = dict[str, Any]
MATH = "dflowd.rewards.checks:math"
OVERLONG = "dflowd.rewards.checks:overlong"
_KL_KINDS = {"kl": "k1", "mse": "k2", "low_var_kl": "k3"}  # siiRL's names of estimators -> ours


def generate(context: Context, node: Node) -> Stage:
    own, place = context.settings.of(node, ACTOR), f"stages.{context.stage_id(node)}"
    config: dict[str, Any] = {
        "data": "train",
        "prompts": context.number(place, own, "data.train_batch_size", 1024),
        "group": _group(context, node),
        "max_tokens": context.number(place, own, "data.max_response_length", 512),
    }
    own.get(f"{ACTOR}.rollout.prompt_length")
    own.get(f"{ACTOR}.rollout.response_length")  # siiRL has both twice
    for key in ("temperature", "top_p"):
        if own.number(f"{ACTOR}.rollout.{key}", 1.0) != 1.0:
            config[key] = own.get(f"{ACTOR}.rollout.{key}")
    if own.number(f"{ACTOR}.rollout.top_k", -1) > 0:
        context.draft.note(NO_TWIN, "rollout.top_k", "tokens are sampled from all, or from `top_p`")
    if own.get(f"{ACTOR}.rollout.multi_turn.enable"):
        context.draft.note(
            TO_DO, f"stages.{context.stage_id(node)}", "turns with tools: write them as an `environment`"
        )
    stage: Stage = {"id": context.stage_id(node), "op": "generate", "model": context.model("policy", node.agent)}
    engine = own.get(f"{ACTOR}.rollout.name")
    if engine in ("vllm", "sglang"):
        stage["engine"] = "vllm"
    if engine == "sglang":
        context.draft.note(NO_TWIN, "rollout.name=sglang", "vLLM samples in its place")
    _agent(context, node)
    return stage | {"config": config}


def _group(context: Context, node: Node) -> Any:
    """Completions of a prompt. A comparison within groups of one, siiRL's default, compares nothing."""
    own = context.settings.of(node, ACTOR)
    if own.has(f"{ACTOR}.rollout.n") or estimator(context) in ("gae", "gae_marft"):
        return own.number(f"{ACTOR}.rollout.n", 1)
    context.draft.fill_in(f"stages.{context.stage_id(node)}", "rollout.n", "group: 8")
    return 8


def _agent(context: Context, node: Node) -> None:
    """What siiRL has of agents that speak in turn."""
    before = [need for need in node.needs if context.kinds[need] is Kind.ROLLOUT]
    if before:
        what = f"goes on from what `{before[0]}` said: write a `reply` stage, with a template of what it is told"
        context.draft.note(NO_TWIN, node.id, what)
    tell_options(context, node)


def tell_options(context: Context, node: Node) -> None:
    if node.options:
        what = f"{', '.join(node.options)}: several agents in one conversation"
        context.draft.note(NO_TWIN, f"{node.id}.agent_options", what)


def reward(context: Context, node: Node) -> Stage:
    settings, stage_id = context.settings, context.stage_id(node)
    settings.get("reward_model.reward_manager")
    if settings.get("reward_model.enable"):
        what = (
            "a reward model: a `reward_model` stage asks one of the run, `dflowd.rewards.judge:score` one behind HTTP"
        )
        context.draft.note(NO_TWIN, "reward_model.enable", what)
    path = str(settings.get("custom_reward_function.path", ""))
    name = settings.get("custom_reward_function.name", "compute_score")
    if path:
        function = f"{Path(path).name}:{name}"
        what = (
            f"{Path(path).name} has to lie beside the spec, and `{name}` to take other arguments: `completion` for "
            "`solution_str`, `answer` for `ground_truth`, and of `entry` the keys `data_source` and `extra_info`"
        )
        context.draft.note(TO_DO, f"stages.{stage_id}", what)
        context.draft.remark(f"stages.{stage_id}", what)
    else:
        function = MATH
        what = f"function {MATH}; siiRL chooses one by each row's `data_source`"
        context.draft.fill_in(f"stages.{stage_id}", node.id, what)
    arguments = settings.get("custom_reward_function.reward_kwargs", {})
    return {
        "id": stage_id,
        "op": "reward",
        "config": {"function": function, **({"args": arguments} if arguments else {})},
    }


def overlong(context: Context) -> Stage | None:
    """DAPO's soft punishment of length, which siiRL's reward node has in it."""
    settings = context.settings
    length = settings.get("reward_model.overlong_buffer.len", 512)
    settings.get("reward_model.overlong_buffer.log")
    if not settings.get("reward_model.overlong_buffer.enable"):
        return None
    most = settings.number("data.max_response_length", 512)
    return {
        "id": "overlong",
        "op": "reward",
        "config": {"function": OVERLONG, "args": {"most": most, "buffer": length}},
    }


def estimator(context: Context) -> str:
    """siiRL's word for how advantages come about; where none was said, what the nodes are made for."""
    return str(context.settings.get("algorithm.adv_estimator") or ("gae" if context.has(Kind.VALUE) else "grpo"))


def advantage(context: Context, node: Node) -> Stage:
    settings, method = context.settings, estimator(context)
    if method not in ("gae", "grpo", "cpgd"):
        ours = "gae" if context.has(Kind.VALUE) else "grpo"
        context.draft.note(NO_TWIN, f"algorithm.adv_estimator={method}", f"`{ours}` stands in its place")
        method = ours
    if method == "gae":
        config: dict[str, Any] = {"method": "gae", "lam": settings.number("algorithm.lam", 1.0), "whiten": True}
        if settings.number("algorithm.gamma", 1.0) != 1.0:
            config["gamma"] = settings.get("algorithm.gamma")
    else:
        config = {"method": "grpo", **_scale(context, method)}
    config |= _kl_in_reward(context, str(config["method"]))
    drops = settings.get("algorithm.filter_groups.enable", context.has(Kind.DYNAMIC_SAMPLING))
    if drops and method != "gae":
        config["drop_flat_groups"] = True
    if settings.get("reward_model.overlong_buffer.enable"):
        weight = settings.get("reward_model.overlong_buffer.penalty_factor", 1.0)
        judges = [stage["id"] for stage in context.stages(Kind.REWARD)]
        config["rewards"] = {**dict.fromkeys(judges, 1.0), "overlong": weight}
    return {"id": context.stage_id(node), "op": "advantage", "config": config}


def _scale(context: Context, method: str) -> dict[str, Any]:
    weight = context.settings.get("algorithm.weight_factor_in_cpgd", "STD_weight")
    is_scaled = context.settings.get("algorithm.norm_adv_by_std_in_grpo", True)
    if method == "cpgd":
        is_scaled = weight == "STD_weight"
        if weight == "clip_filter_like_weight":
            context.draft.note(
                NO_TWIN, "algorithm.weight_factor_in_cpgd", "a weight by how many groups teach; none here"
            )
    return {"scale": "std", "ddof": 1} if is_scaled else {"scale": "none"}


def _kl_in_reward(context: Context, method: str) -> dict[str, Any]:
    """The penalty for leaving the reference, where it is part of the reward."""
    settings = context.settings
    weight = settings.get("algorithm.kl_ctrl.kl_coef", 0.001)
    kind = kl_kind(context, "algorithm.kl_penalty", "kl")
    if not settings.get("algorithm.use_kl_in_reward"):
        return {}
    if method not in ADVANTAGES or "kl" not in ADVANTAGES[method].config:
        context.draft.note(
            NO_TWIN, "algorithm.use_kl_in_reward", f"`{method}` knows no KL in the reward; put it in the loss"
        )
        return {}
    return {"kl": weight, "kl_kind": kind, **_followed(context)}


def _followed(context: Context) -> dict[str, Any]:
    """What the weight of the penalty follows, where it is adaptive."""
    settings = context.settings
    if settings.get("algorithm.kl_ctrl.type", "fixed") != "adaptive":
        return {}
    return {
        "kl_target": settings.get("algorithm.kl_ctrl.target_kl", 0.1),
        "kl_horizon": settings.get("algorithm.kl_ctrl.horizon", 10_000),
    }


def kl_kind(context: Context, key: str, default: str) -> str:
    """Our name of the estimator that a setting names, or of siiRL's default."""
    told = str(context.settings.get(key, default))
    if told not in _KL_KINDS:
        context.draft.note(NO_TWIN, f"{key}={told}", f"`{_KL_KINDS[default]}` stands in its place")
    return _KL_KINDS.get(told, _KL_KINDS[default])


def dynamic_sampling(context: Context, node: Node) -> None:
    """It drops groups, which the advantage does here."""
    settings = context.settings
    for key in ("metric", "max_num_gen_batches"):
        settings.get(f"algorithm.filter_groups.{key}")
    settings.get("data.gen_batch_size")
    context.draft.note(LEFT_OUT, node.id, "the advantage drops groups whose rewards are alike: `drop_flat_groups`")
    what = "dropped groups are not sampled again: a step trains on fewer"
    context.draft.note(NO_TWIN, f"{node.id}, until the batch is full", what)


def own_function(context: Context, node: Node) -> Stage:
    """A stage of one's own. What it writes is guessed by its name and place."""
    stage_id, place = context.stage_id(node), f"stages.{context.stage_id(node)}"
    words = f"{node.id} {node.func} {node.role}".lower()
    writes = stage_id
    for output, kind in (("advantage", Kind.ADVANTAGE), ("reward", Kind.REWARD)):
        if output in words and not context.has(kind):
            writes = output
    if writes != stage_id:
        context.draft.note(FILLED_IN, node.id, f"writes: [{writes}], by its name and place")
    reads = [] if writes == "reward" or not context.has(Kind.REWARD) else ["reward"]
    op = _function(context, node)
    told = "it gets rows, a dict for each completion, and gives a number for each; siiRL's gets a batch"
    context.draft.note(TO_DO, place, f"{told}: rewrite `{op}` so")
    context.draft.remark(place, told)
    return {"id": stage_id, "op": op, **({"reads": reads} if reads else {}), "writes": [writes]}


def _function(context: Context, node: Node) -> str:
    """A function as `module:function`, or `file.py:function` where the file is the one that was read."""
    module, colon, name = node.func.partition(":")
    if not colon:
        module, _, name = node.func.rpartition(".")
    file = context.workflow.files.get(module.rpartition(".")[2])
    if "." in name or not name.isidentifier():
        what = f"`{name or node.id}` is no function of a module: write one, and name it here"
        context.draft.note(TO_DO, f"stages.{context.stage_id(node)}", what)
        name = "".join(part if part.isalnum() else "_" for part in name.rpartition(".")[2]).strip("_") or "function"
    return f"{file or module or 'stages.py'}:{name}"
