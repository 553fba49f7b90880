"""Stages that score by a model or train one, of siiRL's nodes that do."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from dflow_protocols.pipeline.grammar.algorithms import LOSSES

from .context import ACTOR, CRITIC, Context
from .draft import LEFT_OUT, NO_TWIN
from .kinds import Kind
from .sampling import Stage, estimator, kl_kind, tell_options
from .siirl.settings import Settings
from .siirl.workflow import Node

LOSS_MODES: Mapping[str, str] = {
    "vanilla": "grpo",
    "gspo": "gspo",
    "cpgd": "cpgd",
    "gpg": "gpg",
    "clip_cov": "clip_cov",
    "kl_cov": "kl_cov",
    "geo_mean": "gmpo",
}
"""siiRL's `policy_loss.loss_mode` -> ours."""


def old_logprob(context: Context, node: Node) -> Stage | None:
    """By the policy as training computes it. One engine's own are told with its rollouts."""
    if context.is_served:
        return {"id": context.stage_id(node), "op": "logprob", "model": context.model("policy", node.agent)}
    what = "rollouts hold the log-probabilities that their tokens were sampled by"
    context.draft.note(LEFT_OUT, node.id, what)
    return None


def kl_of(context: Context) -> tuple[Any, Any]:
    """The weights of the KL in the loss and in the reward; in the loss it is `kl`, a param, where nothing was said."""
    settings = context.settings
    weight = settings.get(f"{ACTOR}.actor.kl_loss_coef", 0.001)
    in_reward = settings.get("algorithm.kl_ctrl.kl_coef", 0.001) if settings.get("algorithm.use_kl_in_reward") else 0
    if settings.get(f"{ACTOR}.actor.use_kl_loss") is None:
        return (0 if in_reward or context.is_served or not context.has(Kind.REFERENCE) else "kl"), in_reward
    return (weight if settings.get(f"{ACTOR}.actor.use_kl_loss") else 0), in_reward


def reference(context: Context, node: Node) -> Stage | None:
    """Scored where something asks for it."""
    in_loss, in_reward = kl_of(context)
    if not in_loss and not in_reward:
        context.draft.note(LEFT_OUT, node.id, "nothing reads it: neither the loss nor the reward has a KL")
        return None
    stage = {"id": context.stage_id(node), "op": "logprob", "model": context.model("reference", node.agent)}
    if in_loss == "kl":
        context.draft.fill_in("params", "use_kl_loss", "kl: 0; above 0 a reference scores, and the loss has a KL")
        stage["when"] = "kl > 0"
    return stage


def value(context: Context, node: Node) -> Stage:
    return {"id": context.stage_id(node), "op": "value", "model": _critic(context, node)}


def _critic(context: Context, node: Node) -> str:
    shared = node.options.get("share_instance")
    return context.model("critic", node.agent if shared is None else int(shared))


def actor(context: Context, node: Node) -> Stage:
    own, place = context.settings.of(node, ACTOR), f"stages.{context.stage_id(node)}"
    branch = f"{ACTOR}.actor"
    config = _updates(context, own, branch, place) | {"loss": dict(_loss(context, own))}
    cap = own.number(f"{branch}.tis_imp_ratio_cap", -1)
    if cap > 0:
        config["correction"] = {"kind": "truncate", "high": cap}
    config["optimizer"] = _optimizer(context, own, branch, place)
    tell_options(context, node)
    stage: Stage = {"id": context.stage_id(node), "op": "train", "model": context.model("policy", node.agent)}
    warmup = context.settings.number("trainer.critic_warmup", 0)
    if warmup > 0:
        stage["when"] = f"step >= {warmup}"  # the critic alone is trained before
    return stage | {"config": config}


def critic(context: Context, node: Node) -> Stage:
    own, place = context.settings.of(node, CRITIC), f"stages.{context.stage_id(node)}"
    loss = {"kind": "value", "value_clip": own.get(f"{CRITIC}.cliprange_value", 0.5)}
    config = {
        **_updates(context, own, CRITIC, place),
        "loss": loss,
        "optimizer": _optimizer(context, own, CRITIC, place),
    }
    return {"id": context.stage_id(node), "op": "train", "model": _critic(context, node), "config": config}


def _updates(context: Context, own: Settings, branch: str, place: str) -> dict[str, Any]:
    """How often a step trains on what, and the bound of a gradient."""
    found: dict[str, Any] = {}
    epochs, prompts = own.number(f"{branch}.ppo_epochs", 1), own.number("data.train_batch_size", 1024)
    size = own.number(f"{branch}.ppo_mini_batch_size", 256)
    if epochs > 1:
        found["epochs"] = epochs
    if 0 < size < prompts:
        context.setting(place, own, f"{branch}.ppo_mini_batch_size", 256)
        found["minibatches"] = math.ceil(prompts / size)
    return found | {"clip_norm": own.number(f"{branch}.grad_clip", 1.0)}


def _optimizer(context: Context, own: Settings, branch: str, place: str) -> dict[str, Any]:
    default = "1e-5" if branch == CRITIC else "1e-6"
    adamw: dict[str, Any] = {"lr": context.setting(place, own, f"{branch}.optim.lr", default)}
    ramp = own.number(f"{branch}.optim.lr_warmup_steps", -1)
    share = own.number(f"{branch}.optim.lr_warmup_steps_ratio", 0.0)
    if ramp > 0:
        adamw["ramp_steps"] = ramp
    elif share > 0:
        adamw["ramp_steps"] = int(share * context.draft.spec["steps"])
    if own.get(f"{branch}.optim.warmup_style", "constant") == "cosine":
        end = own.number(f"{branch}.optim.lr", float(default)) * own.number(f"{branch}.optim.min_lr_ratio", 0.0)
        adamw |= {"schedule": "cosine", "end": end}
    if own.has(f"{branch}.optim.betas"):
        adamw["betas"] = own.get(f"{branch}.optim.betas")
    return {"adamw": adamw | {"weight_decay": own.get(f"{branch}.optim.weight_decay", 0.01)}}


def _loss(context: Context, own: Settings) -> Iterator[tuple[str, Any]]:
    """The policy's loss: its kind where it is not the default, and its settings, as far as the kind has them."""
    branch = f"{ACTOR}.actor"
    kind = _loss_kind(context, own)
    if kind != "grpo":
        yield "kind", kind
    low, high = (own.get(f"{branch}.{key}") for key in ("clip_ratio_low", "clip_ratio_high"))
    both = own.get(f"{branch}.clip_ratio", 0.2)
    in_loss, _ = kl_of(context)
    estimator_kind = kl_kind(context, f"{branch}.kl_loss_type", "low_var_kl")
    wanted = {
        "clip": [both if low is None else low, both if high is None else high],
        "dual_clip": own.get(f"{branch}.clip_ratio_c", 3.0),
        "drift": own.get(f"{branch}.policy_drift_coeff", 0.0),
        "mean": "sequence" if own.get(f"{branch}.loss_agg_mode") == "seq-mean-token-mean" else None,
        "entropy": own.get(f"{branch}.entropy_coeff", 0) or None,
        "kl": in_loss or None,
        "kl_kind": estimator_kind if in_loss and estimator_kind != "k3" else None,
    }
    known = LOSSES[kind].config
    for key, setting in wanted.items():
        if setting is not None and key in known:
            yield key, setting
        elif setting is not None and own.has(f"{branch}.{_THEIRS.get(key, key)}"):
            context.draft.note(NO_TWIN, f"actor.{_THEIRS[key]}", f"the loss `{kind}` has no such setting here")


_THEIRS = {"dual_clip": "clip_ratio_c", "entropy": "entropy_coeff", "kl_kind": "kl_loss_type", "mean": "loss_agg_mode"}


def _loss_kind(context: Context, own: Settings) -> str:
    branch = f"{ACTOR}.actor"
    is_cpgd = own.get(f"{branch}.use_cpgd_loss") or estimator(context) == "cpgd"
    mode = str(own.get(f"{branch}.policy_loss.loss_mode", "vanilla"))
    aggregation = own.get(f"{branch}.loss_agg_mode", "token-mean")
    kind = "cpgd" if is_cpgd else LOSS_MODES.get(mode, mode)
    if kind not in LOSSES:
        context.draft.note(NO_TWIN, f"actor.policy_loss.loss_mode={mode}", "the loss `grpo` stands in its place")
        kind = "grpo"
    if kind == "grpo" and aggregation in ("seq-mean-token-sum", "seq-mean-token-sum-norm"):
        kind = "dr_grpo"
        context.draft.remark("stages", f"loss_agg_mode={aggregation}: `dr_grpo` is it but for a constant factor")
    elif kind == "grpo" and estimator(context).startswith("gae") and "ppo" in LOSSES and aggregation == "token-mean":
        kind = "ppo"
    return kind
