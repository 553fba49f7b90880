"""How long the rollouts of a pipeline may get, and what they take of shards: by its stages alone. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dflow_protocols.pipeline import Pipeline, Stage
from dflow_protocols.pipeline.grammar.signatures import HEARD, enough

PROMPT = 128  # tokens, a guess: a plan reads no data
TOKEN = 12  # bytes in a rollout: its number, its log-probability, and its text, of about four letters
COLUMN = 4  # bytes of a further number for each token
FEW = ("reward", "kept")  # outputs with one number a completion


def longest(pipeline: Pipeline, stage: Stage) -> int:
    """Tokens behind the prompt in the rollout that a stage writes, at most: with a reply stands what it replies to,
    as often as its template has that."""
    config, heard = stage.config, _read_by(pipeline, stage)
    if heard is None:
        return int(min(config["max_tokens"], config.get("segment_tokens") or config["max_tokens"]))
    if stage.operator.continues:
        return int(min(config["max_tokens"], longest(pipeline, heard) + config["segment_tokens"]))
    return int(config["max_tokens"] + config["template"].count(HEARD) * heard.config["max_tokens"])


def said_at_once(pipeline: Pipeline, stage: Stage) -> tuple[int, int]:
    """(completions that a stage samples together, tokens of each at most): those of a partition."""
    sampled = pipeline.beginning_of(stage.id)
    begins, config = sampled.operator.begins, sampled.config
    assert begins is not None
    groups = -(-int(config[begins.groups]) // int(config["partitions"]))
    most = int(config["max_tokens"]) if stage.operator.evaluates else longest(pipeline, stage)
    return groups * int(config.get("group", 1)), PROMPT + most


def trained_groups(pipeline: Pipeline, sampled: Stage) -> int:
    """Groups that a step trains on at most. `sampled`: the stage whose prompts they are."""
    rounds, prompts = _rounds_of(pipeline, sampled), int(sampled.config["prompts"])
    return prompts if rounds is None else enough(rounds["until"], prompts)


def sampled_groups(pipeline: Pipeline, sampled: Stage) -> int:
    """Groups that a step samples at most, in all of its rounds."""
    rounds = _rounds_of(pipeline, sampled)
    return int(sampled.config["prompts"]) * (1 if rounds is None else int(rounds["max"]))


def steps_held(pipeline: Pipeline) -> int:
    """Steps whose rollouts lie there at once: the one that trains, and those that are sampled meanwhile."""
    return 1 + int(pipeline.lag or (pipeline.asynchrony or {}).get("max_staleness", 0))


def step_bytes(pipeline: Pipeline) -> int:
    """Of all that the stages of one step write, where completions are as long as they may be."""
    return sum(_bytes_of(pipeline, stage) for stage in pipeline.stages if pipeline.schedule.runs(stage.id))


def _bytes_of(pipeline: Pipeline, stage: Stage) -> int:
    whose = stage if stage.operator.samples or stage.operator.prefers else _read_by(pipeline, stage)
    if whose is None or stage.operator.evaluates or not stage.operator.is_on_partitions:
        return 0
    sampled = pipeline.beginning_of(whose.id)
    groups, group = sampled_groups(pipeline, sampled), sampled.width
    each = [_token_bytes(pipeline, stage) if name == "rollout" else COLUMN for name in stage.writes if name not in FEW]
    prompts = COLUMN * PROMPT * groups if "rollout" in stage.writes else 0
    return prompts + groups * group * longest(pipeline, whose) * sum(each)


def _token_bytes(pipeline: Pipeline, stage: Stage) -> int:
    """Of a token in a rollout, with its version, its probability among those that `top_p` leaves, and its turn."""
    has_turns = stage.config.get("environment") is not None or "template" in stage.config
    has_nucleus = stage.config.get("top_p", 1) < 1
    more: int = (pipeline.asynchrony is not None) + has_nucleus + 2 * has_turns  # turns have texts, too
    return TOKEN + COLUMN * more


def _read_by(pipeline: Pipeline, stage: Stage) -> Stage | None:
    """Who wrote the rollout that a stage reads."""
    read = next((read for read in stage.reads if read.endswith(".rollout")), None)
    return None if read is None else pipeline.stage(read.partition(".")[0])


def _rounds_of(pipeline: Pipeline, sampled: Stage) -> Mapping[str, Any] | None:
    """Of the chain that a stage began."""
    having = (stage for stage in pipeline.stages if stage.rounds is not None)
    return next((each.rounds for each in having if pipeline.beginning_of(each.id) == sampled), None)
