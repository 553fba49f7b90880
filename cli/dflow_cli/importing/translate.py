"""A siiRL pipeline with its settings -> a draft of the same pipeline here."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from dflow_protocols.pipeline import Pipeline, SpecError

from . import sampling, sources, updates
from .context import Context
from .draft import LEFT_OUT, NO_TWIN, REFUSED, Draft
from .kinds import Kind
from .siirl.settings import Settings
from .siirl.workflow import Node, Workflow

Stage = dict[str, Any]

STAGES: Mapping[Kind, Callable[[Context, Node], Stage | None]] = {
    Kind.ROLLOUT: sampling.generate,
    Kind.REWARD: sampling.reward,
    Kind.DYNAMIC_SAMPLING: sampling.dynamic_sampling,
    Kind.ADVANTAGE: sampling.advantage,
    Kind.OLD_LOGPROB: updates.old_logprob,
    Kind.REFERENCE: updates.reference,
    Kind.VALUE: updates.value,
    Kind.ACTOR: updates.actor,
    Kind.CRITIC: updates.critic,
    Kind.OWN: sampling.own_function,
}
SCORED = (Kind.OLD_LOGPROB, Kind.REFERENCE, Kind.VALUE, Kind.ACTOR, Kind.CRITIC)
"""Nodes of which each goes by one rollout."""


def translate(workflow: Workflow, settings: Settings) -> Draft:
    """A pipeline's draft, with notes of all that it does not say alike."""
    draft = Draft(workflow.source)
    context = Context(workflow, settings, draft)
    name = re.sub(r"[^\w.-]+", "_", workflow.name, flags=re.ASCII).strip("_.-")[:64] or "pipeline"
    draft.spec["name"] = name
    in_loss, _ = updates.kl_of(context)
    if in_loss == "kl":
        draft.spec["params"] = {"kl": 0}
    draft.spec["steps"] = sources.steps(context)
    if settings.has("trainer.seed"):
        draft.spec["seed"] = settings.get("trainer.seed")
    draft.spec |= {"models": {}, "data": {}, "stages": _stages(context)}
    measured = sources.evaluation(context)
    draft.spec["stages"] += [measured] if measured else []
    draft.spec["models"], draft.spec["data"] = sources.models(context), sources.data(context)
    draft.spec |= sources.run_keys(context)
    if sources.uses_images(context):
        draft.note(NO_TWIN, workflow.name, "robots and pictures: rollouts here are texts")
    sources.tell_unasked(context)
    _tell_problems(draft)
    return draft


def _stages(context: Context) -> list[Stage]:
    found: list[Stage] = []
    for node in context.workflow.nodes:
        kind = context.kinds[node.id]
        make = STAGES.get(kind)
        stage = make(context, node) if make else None
        if kind is Kind.PLUMBING:
            context.draft.note(LEFT_OUT, node.id, "records and seals carry data and order steps")
        elif kind is Kind.EMBODIED:
            context.draft.note(NO_TWIN, node.id, "it is of robots or environments, and became nothing")
        if stage is not None:
            context.keep(node, stage)
            found.append(stage)
        extra = sampling.overlong(context) if kind is Kind.REWARD else None
        if extra is not None and extra not in found:
            found.append(extra)
    for node in context.workflow.nodes:
        if node.id in context.made and context.kinds[node.id] in SCORED:
            _name_reads(context, node)
    return found


def _name_reads(context: Context, node: Node) -> None:
    """What the nearest stages before would not give: a policy's training reads all log-probabilities there are, and of
    several agents each goes by its own rollout."""
    scorers = (Kind.OLD_LOGPROB, Kind.REFERENCE) if context.kinds[node.id] is Kind.ACTOR else ()
    scores = [f"{stage['id']}.logprob" for kind in scorers for stage in context.stages(kind, node.agent)]
    if len(context.workflow.agents) > 1:
        rollouts = [f"{stage['id']}.rollout" for stage in context.stages(Kind.ROLLOUT, node.agent)]
        context.name_reads(node, [*rollouts, *scores])
    elif len(scores) > 1:
        context.name_reads(node, scores)


def _tell_problems(draft: Draft) -> None:
    """What validation says of the spec, files aside."""
    try:
        Pipeline.from_dict(draft.spec)
    except SpecError as error:
        for problem in error.problems:
            draft.note(REFUSED, problem.path or draft.name, f"{problem.what} (hint: {problem.hint})")
