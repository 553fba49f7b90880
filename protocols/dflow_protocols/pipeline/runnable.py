"""Whether the stages of a pipeline fall into chains and trainings that a step can run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from .grammar.expression import parse
from .grammar.layout import KEPT
from .grammar.problem import Problem
from .grammar.signatures import MAX_PARTITIONS, enough, updates_of
from .graph import Vertex, chains_of, order
from .schedule import Schedule, Timing, Unready, make_schedule

MAX_UPDATES = 256  # of a step: what it sampled, and the version that it began with, is kept until the last
MAX_VERSIONS_BEHIND = 256  # so many versions back every node knows the names of its chain
SEGMENTED = ("temperature", "top_p", "max_tokens", "segment_tokens")  # settings that the segments of a rollout share


def check_chains(vertices: Sequence[Vertex]) -> Iterator[Problem]:
    """Each chain has one stage that makes its partitions; each training reads one chain; something is trained."""
    by_id = {vertex.id: vertex for vertex in vertices}
    groups = chains_of(vertices)
    chain_of = {stage: group for group in groups for stage in group}
    for group in groups:
        yield from _check_group([by_id[name] for name in group])
    for vertex in vertices:
        if not vertex.operator.is_on_partitions:
            read = list(dict.fromkeys(chain_of[name][0] for name in vertex.sources))
            if len(read) > 1:
                what = f"stage `{vertex.id}` reads what starts at `{read[0]}` and what starts at `{read[1]}`"
                yield Problem(vertex.place, what, "a `train` stage reads one chain yet")
        for name in vertex.after:
            if vertex.id not in chain_of or name not in chain_of or chain_of[name] != chain_of[vertex.id]:
                what = f"stage `{vertex.id}` comes after `{name}`, but not on the same partitions"
                yield Problem(f"{vertex.place}.after", what, "`after` orders the stages of one chain only")
    if not any(vertex.operator.trains for vertex in vertices):
        yield Problem("stages", "no stage trains", "add a `train` or an `sft` stage")


def _check_group(group: Sequence[Vertex]) -> Iterator[Problem]:
    roots = [vertex for vertex in group if vertex.operator.begins is not None]
    if len(roots) > 1:
        names = " and ".join(f"`{vertex.id}`" for vertex in roots[:2])
        yield Problem(
            roots[1].place, f"stages {names} are joined by a stage that reads both", "split that stage in two"
        )
    elif len(group) > 1 and any(not vertex.operator.begins.is_read for vertex in roots if vertex.operator.begins):
        reader = group[1]
        what = f"stage `{reader.id}` reads from `{roots[0].id}`, a `{roots[0].op}` stage"
        yield Problem(reader.place, what, "only what a `generate` stage began can be read by other stages")


def check_rounds(spec: Mapping[str, Any], vertices: Sequence[Vertex]) -> Iterator[Problem]:
    """A chain has rounds by one of its stages, one of them says what is trained on, and enough may come of all rounds.
    `spec`: with its numbers filled in."""
    stages = {stage["id"]: stage for stage in spec["stages"]}
    by_id = {vertex.id: vertex for vertex in vertices}
    for group in chains_of(vertices):
        having = [by_id[name] for name in group if stages[name]["rounds"] is not None]
        if not having:
            continue
        first = having[0]
        for other in having[1:]:
            what = f"stages `{first.id}` and `{other.id}` have rounds of the same chain"
            yield Problem(f"{other.place}.rounds", what, "leave `rounds` out of one of them")
        counted = {read.partition(".")[0] for vertex in vertices for read in _counted(vertex)} & {*group}
        if len(counted) != 1:
            names = " and ".join(f"`{name}`" for name in sorted(counted)) or "no stage"
            what = f"stage `{first.id}`: {names} of its chain says which groups are trained on"
            yield Problem(f"{first.place}.rounds", what, "rounds go by one stage: train on one `advantage`")
        yield from _check_size(first, stages[first.id]["rounds"], stages[group[0]]["config"])


def _counted(vertex: Vertex) -> Iterator[str]:
    """What a training reads that says which groups it is of."""
    lesson = vertex.operator.trains
    return (read for read in vertex.reads if lesson is not None and read.endswith(f".{lesson.groups}"))


def _check_size(vertex: Vertex, rounds: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Problem]:
    """`root`: the config of the stage that samples."""
    most, prompts, partitions = rounds["max"], root["prompts"], root["partitions"]
    due = enough(rounds["until"], prompts)
    if due > most * prompts:
        what = f"stage `{vertex.id}`: {due} groups are asked for, and {most} rounds of {prompts} prompts have fewer"
        yield Problem(f"{vertex.place}.rounds.until", what, "lower `until`, or raise `max` or the stage's `prompts`")
    if most * partitions > MAX_PARTITIONS:
        what = f"stage `{vertex.id}`: {most} rounds of {partitions} partitions"
        hint = f"lower `max` or `partitions`: a step has at most {MAX_PARTITIONS} partitions"
        yield Problem(f"{vertex.place}.rounds.max", what, hint)


def check_segments(spec: Mapping[str, Any], vertices: Sequence[Vertex]) -> Iterator[Problem]:
    """Completions that are sampled in segments have as many stages as it may take to end them, and each goes on as the
    one before it began. `spec`: with its numbers filled in."""
    stages = {stage["id"]: stage for stage in spec["stages"]}
    following = {vertex.sources[0]: vertex.id for vertex in vertices if vertex.operator.continues}
    for vertex in vertices:
        config = stages[vertex.id]["config"]
        if vertex.operator.continues:
            before = stages[vertex.sources[0]]
            if _how(stages[vertex.id]) != _how(before):
                what = f"stage `{vertex.id}` does not go on as `{before['id']}` began"
                yield Problem(vertex.place, what, "leave it out: `async: {partial: true}` makes these stages")
        elif each := config.get("segment_tokens"):
            most, found, last = -(-config["max_tokens"] // each), 1, vertex.id
            while last := following.get(last, ""):
                found += 1
            if found != most:
                what = f"stage `{vertex.id}`: {config['max_tokens']} tokens are {most} segments of {each}, not {found}"
                hint = (
                    f"leave it out, and write `async: {{partial: true, segment_tokens: {each}}}`, which adds the others"
                )
                yield Problem(f"{vertex.place}.config.segment_tokens", what, hint)


def _how(stage: Mapping[str, Any]) -> list[Any]:
    """A stage samples a segment of a completion so."""
    return [stage["model"], *(stage["config"].get(key) for key in SEGMENTED)]


def check_schedule(spec: dict[str, Any], vertices: Sequence[Vertex]) -> tuple[Schedule | None, list[Problem]]:
    """When each stage runs, and which versions each step makes."""
    stages = {stage["id"]: stage for stage in spec["stages"]}
    by_id = {vertex.id: vertex for vertex in vertices}
    timings = [
        Timing(
            name,
            parse(stages[name]["when"], {}) if stages[name]["when"] else None,
            stages[name]["every"],
            by_id[name].sources,
            updates_of(stages[name]["config"]) if by_id[name].operator.trains else 0,
        )
        for name in order(vertices)
    ]
    try:
        schedule = make_schedule(spec["steps"], timings)
    except Unready as error:
        place = f"{by_id[error.stage].place}.when"
        if error.error:
            what = f"stage `{error.stage}`: `when` {error.error} at step {error.step}"
            return None, [Problem(place, what, "it has to be true or false at every step")]
        what = f"stage `{error.stage}` runs at step {error.step}, but `{error.source}`, which it reads, does not"
        return None, [Problem(place, what, "leave `when` out: it then runs whenever what it reads is there")]
    most = max(after - first for first, after in pairwise(schedule.firsts))
    if most > MAX_UPDATES:
        hint = f"lower `epochs` or `minibatches`: a step makes at most {MAX_UPDATES}"
        return None, [Problem("stages", f"a step makes {most} updates", hint)]
    behind = most * (spec["async"] or {"max_staleness": 0})["max_staleness"]
    if behind > MAX_VERSIONS_BEHIND:
        what = f"rollouts may be {behind} versions behind, as a step makes {most} updates"
        hint = f"lower it, `epochs` or `minibatches`: names of {MAX_VERSIONS_BEHIND} versions are kept"
        return None, [Problem("async.max_staleness", what, hint)]
    return schedule, [*_too_early(spec, by_id, schedule)]


def _too_early(spec: dict[str, Any], by_id: Mapping[str, Vertex], schedule: Schedule) -> Iterator[Problem]:
    """Stages that ask a version of another model before there is one that has it: before the step that begins with
    it, or of rollouts that may be of a version before."""
    ahead = spec["lag"] + (spec["async"] or {"max_staleness": 0})["max_staleness"]
    for stage in spec["stages"]:
        model = spec["models"].get(stage["model"]) or {}
        vertex, first = by_id[stage["id"]], schedule.active[stage["id"]].find(1)
        if first < 0 and vertex.operator.evaluates:
            first = schedule.steps  # the final version is evaluated in any case
        behind = 0 if vertex.operator.evaluates else ahead
        oldest = max(0, first - behind)
        if KEPT in model and first >= 0 and oldest < model["at"]:
            name, since = stage["model"], model["at"]
            what = f"stage `{stage['id']}` runs at step {first}, and `{name}` is what step {since} begins with"
            begins = since + behind
            hint = (
                f"have {'what it reads' if vertex.sources else 'it'} begin at step {begins}: `when: step >= {begins}`"
            )
            if behind:
                what = f"stage `{stage['id']}` runs at step {first} on rollouts of what step {oldest} begins with, and "
                what += f"`{name}` is what step {since} does"
                hint += f"; or lower `at` of `models.{name}` to {oldest}"
            if since > schedule.steps:
                hint = f"the run ends with step {schedule.steps - 1}: lower `at` of `models.{name}`"
            yield Problem(f"{vertex.place}.when", what, hint)
