"""Validation: every mistake of a pipeline with its place, and the pipeline with all defaults filled in.

`resolve` is the only door: what comes out of it can be planned and run, and resolves to itself.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from .assignment import check_engine, check_served, check_stage_engine, settle_claim, share_stages
from .defaults import fill
from .entries.settings import settle_sources
from .grammar.engines import ENGINES, STATES
from .grammar.expression import ExpressionError, Value, parse
from .grammar.layout import KEPT, PLAN_VERSION, STAGE, STAGE_ID, STAGE_ID_FORM, TOP, origin_of
from .grammar.problem import Problem, SpecError, placed, suggest
from .grammar.rows import RAGGED, ROW
from .grammar.scoring import FUNCTION_FORM, FUNCTION_PATTERN
from .grammar.shape import NAME, NAME_FORM, Reader, Section, at
from .grammar.signatures import (
    OPERATORS,
    Operator,
    head_of,
    is_corrected,
    loss_of,
    method_of,
    operator_of,
    reads_of,
    writes_of,
)
from .graph import Vertex, connect
from .recipes.expansion import expand
from .runnable import SEGMENTED, check_chains, check_rounds, check_schedule, check_segments
from .schedule import Schedule

MAX_SEGMENTS = 16  # of a completion: each is a record of each partition
_CONTINUE = next(name for name, operator in OPERATORS.items() if operator.continues)
_DIGEST = r"[0-9a-f]{64}"


def resolve(raw: Any) -> tuple[dict[str, Any], Schedule]:
    """The pipeline in full, as plain mappings and lists, and when its stages run. Raises SpecError with all problems.

    Expressions have the params put in, so `params` is empty in the result.
    """
    if not isinstance(raw, Mapping):
        raise SpecError([Problem("", "a pipeline is a mapping", "start with `name: my_pipeline`")])
    written, raw = raw, expand(raw)
    reader = Reader({})
    reader.define(_params(reader, raw.get("params")))
    reader.unknown_keys(raw, TOP, "")
    spec = {key: reader.read(shape, raw.get(key), key) for key, shape in TOP.items()}
    spec["params"] = {}
    del spec["algorithm"]  # what it stands for is there, or it was noted
    stages = [stage for stage in spec["stages"] or [] if stage is not None]
    share_stages(spec, stages)
    _check_top(reader, spec)
    settle_sources(reader, raw.get("data"), spec["data"] or {})
    vertices = [_stage(reader, spec, stage, f"stages[{index}]") for index, stage in enumerate(stages)]
    _cut_rollouts(reader, spec, stages, vertices)
    _check_ids(reader, vertices)
    trained = {stage["model"] for stage in stages if operator_of(stage["op"] or "").trains}
    _check_lora(reader, spec, trained)
    _check_kept(reader, spec, trained)
    if all(v.id and (v.is_built_in or ":" in v.op) for v in vertices):  # else what they write is not known
        reader.problems.extend(connect(vertices))
    if not reader.problems:
        for stage, vertex in zip(stages, vertices, strict=True):
            stage["reads"] = list(vertex.reads)
        reader.problems.extend(check_chains(vertices))
    if not reader.problems:
        reader.problems.extend([*fill(spec, vertices), *settle_claim(spec, vertices), *check_served(spec, vertices)])
    if not reader.problems:
        reader.problems.extend([*check_rounds(spec, vertices), *check_segments(spec, vertices)])
    schedule, problems = check_schedule(spec, vertices) if not reader.problems else (None, [])
    reader.problems.extend(problems)
    if reader.problems or schedule is None:
        raise SpecError(_as_written(reader.problems, written, raw))
    return spec, schedule


def _as_written(problems: Sequence[Problem], raw: Mapping[str, Any], whole: Mapping[str, Any]) -> Sequence[Problem]:
    """Problems of `whole`, what `raw` expands to, with paths in `raw`: those of a stage that the algorithm made are
    told where it is named."""
    if whole is raw:
        return problems
    stages, written = ([str(stage.get("id")) for stage in each.get("stages") or ()] for each in (whole, raw))
    return [placed(problem, stages, written, "algorithm") for problem in problems]


def _params(reader: Reader, raw: Any) -> dict[str, Value]:
    """The params by name, all of them numbers or true/false."""
    constants: dict[str, Value] = {}
    for name, value in raw.items() if isinstance(raw, Mapping) else ():
        path = at("params", str(name))
        if not isinstance(name, str) or not re.fullmatch(NAME, name) or name == "step":
            hint = "`step` is the step itself" if name == "step" else f"a name is {NAME_FORM}"
            reader.note(path, f"`{name}` is no name for a param", hint)
            continue
        try:
            constant = parse(str(value), {}, with_step=False).constant
        except ExpressionError:
            constant = None
        if constant is None:
            reader.note(path, f"param `{name}` is `{value}`", "it has to be a number, true or false")
            constant = 1  # so that what uses it is not blamed as well
        constants[name] = constant
    return constants


def _check_top(reader: Reader, spec: dict[str, Any]) -> None:
    if spec["plan_version"] not in (None, PLAN_VERSION):  # and whatever else looks wrong may be right by those rules
        what = f"`plan_version` is {spec['plan_version']}, but this dflowd plans by version {PLAN_VERSION}"
        hint = f"write `plan_version: {PLAN_VERSION}`; its weights are others"
        raise SpecError([Problem("plan_version", what, hint)])
    engines = {spec["engine"], *(stage.get("engine") for stage in spec["stages"] or () if stage)}
    if spec["emulated"] and spec["engine"] is not None and "emulated" not in engines:
        reader.note("emulated", "`emulated` is a profile of the engine `emulated`", "add `engine: emulated`")
    check_engine(reader, spec["engine"], {STATES}, "engine", "a pipeline's engine updates and saves its versions")
    for name, digest in (spec["digests"] or {}).items():
        if not isinstance(digest, str) or not re.fullmatch(_DIGEST, digest):
            reader.note(at("digests", name), f"`{name}` is no digest", "leave `digests` out: submit fills it in")


def _check_ids(reader: Reader, vertices: list[Vertex]) -> None:
    first: dict[str, int] = {}
    for index, vertex in enumerate(vertices):
        earlier = first.setdefault(vertex.id or f"[{index}]", index)
        if earlier != index and not (vertex.is_segment or vertices[earlier].is_segment):  # told as it was made
            reader.note(f"{vertex.place}.id", f"there are two stages `{vertex.id}`", "rename one of them")


def _check_lora(reader: Reader, spec: dict[str, Any], trained: Collection[str | None]) -> None:
    """`trained`: the models that some stage trains."""
    for name, model in (spec["models"] or {}).items():
        lora, place = (model or {}).get("lora"), at(at("models", name), "lora")
        if lora is None:
            continue
        if name not in trained:
            what = f"model `{name}` has adapters, and no stage trains it"
            reader.note(place, what, "leave `lora` out: without adapters it is the same model")
        if model.get("head"):
            what = f"model `{name}` has adapters, and a head that is trained whole"
            reader.note(place, what, "leave `lora` out: all of a critic's weights are trained")
        engine = spec["engine"]
        if engine in ENGINES and not ENGINES[engine].opens_files:
            what = f"model `{name}` has adapters, and {engine} engines have no weights to put them beside"
            reader.note(place, what, "write `engine: torch`, or leave `lora` out")
        if lora["dropout"]:
            what = f"`dropout` is {lora['dropout']:g}, and a gradient here is a function of its leaf"
            reader.note(at(place, "dropout"), what, "leave `dropout` out: it is 0")


def _check_kept(reader: Reader, spec: dict[str, Any], trained: Collection[str | None]) -> None:
    """Models that are a version of one of `trained`, as `_check_lora` has them."""
    for name, model in (spec["models"] or {}).items():
        source, place = (model or {}).get(KEPT), at(at("models", name), KEPT)
        if source is None:
            continue
        if source not in trained:
            what = f"model `{name}` is to be a version of `{source}`, which no stage trains"
            reader.note(place, what, suggest(source, {each for each in trained if each}, "trained models"))
        if name in trained:
            what = f"model `{name}` is a version of `{source}`, and a stage trains it"
            reader.note(place, what, "give it weights of its own to begin with, by `path` or `init`")


def _stage(reader: Reader, spec: dict[str, Any], stage: dict[str, Any], place: str) -> Vertex:
    """Check one stage by itself and fill its defaults in. What it is connected to comes later."""
    name, op = stage["id"] or "", stage["op"] or ""
    operator = operator_of(op)
    reader.turn_to(f"stage `{name}`: ")
    asked = tuple(text for text in stage["reads"] or () if text)
    if op in OPERATORS:
        _built_in(reader, spec, stage, operator, place)
    elif op:
        _users_own(reader, stage, place)
    _check_rounds(reader, stage, operator, place)
    _not_yet(reader, stage, place)
    check_stage_engine(reader, spec, stage, operator, place)
    reader.turn_to("")
    needed = reads_of(operator, stage["config"] or {})
    after = tuple(text for text in stage["after"] or () if text)
    weighed = tuple(sorted((stage["config"] or {}).get("rewards") or ())) if operator.compares else ()
    writes = tuple(text for text in stage["writes"] or () if text)
    is_open = operator.trains is not None and ":" in loss_of(operator.trains, stage["config"] or {})[0]
    return Vertex(name, op, place, asked, needed, writes, after, weighed, is_open)


def _cut_rollouts(reader: Reader, spec: dict[str, Any], stages: list[dict[str, Any]], vertices: list[Vertex]) -> None:
    """`async.partial`: puts a `continue` behind each stage that begins rollouts, for each further segment of theirs.
    What named its rollout names that of the last one. `async` says no word of it any more: the stages do."""
    found = spec["async"] or {}
    is_cut, asked = found.pop("partial", False), found.pop("segment_tokens", None)
    if not is_cut:
        if asked is not None:
            reader.note("async.segment_tokens", "completions are not cut into segments", "add `partial: true`")
        return
    for vertex in [each for each in vertices if each.operator.samples and each.operator.begins is not None]:
        if vertex.operator.evaluates:
            continue
        stage = stages[vertices.index(vertex)]
        config = stage["config"] or {}
        if not _may_be_cut(reader, config, vertex) or config.get("max_tokens") is None:
            continue
        each = asked or -(-config["max_tokens"] // (int(found.get("max_staleness") or 1) + 1))
        count = -(-config["max_tokens"] // each)
        if count > MAX_SEGMENTS:
            what = f"{config['max_tokens']} tokens are {count} segments of {each}"
            reader.note("async.segment_tokens", what, f"a completion has at most {MAX_SEGMENTS}: raise it")
        elif count > 1:
            config["segment_tokens"] = each
            _add_segments(reader, spec, vertex, stages, vertices, count)
    spec["stages"] = stages


def _may_be_cut(reader: Reader, config: Mapping[str, Any], vertex: Vertex) -> bool:
    for key in ("environment", "stop"):
        if config.get(key):
            what = f"stage `{vertex.id}` has `{key}`, and `partial` cuts what it samples at any token"
            reader.note(f"{vertex.place}.config.{key}", what, f"leave `partial` or `{key}` out")
            return False
    return True


def _add_segments(
    reader: Reader,
    spec: dict[str, Any],
    vertex: Vertex,
    stages: list[dict[str, Any]],
    vertices: list[Vertex],
    count: int,
) -> None:
    names = [f"{vertex.id}_{number}" for number in range(2, count + 1)]
    _check_segment_ids(reader, vertex, names, vertices)
    at, before = vertices.index(vertex), vertex.id
    stage = stages[at]
    quiet = Reader(reader.constants)  # what is wrong with a segment is wrong with what was written, and told there
    for name in names:
        said = {"id": name, "op": _CONTINUE, "model": stage["model"], "reads": [f"{before}.rollout"]}
        said |= {key: stage[key] for key in ("requires", "engine") if stage.get(key)}
        said["config"] = {key: stage["config"][key] for key in SEGMENTED}
        more = quiet.read(Section("a stage", STAGE), said, vertex.place)
        at, before = at + 1, name
        vertices.insert(at, replace(_stage(quiet, spec, more, vertex.place), is_segment=True))
        stages.insert(at, more)
    for other in vertices:
        if not other.operator.continues:
            other.asked = tuple(f"{before}.rollout" if text == f"{vertex.id}.rollout" else text for text in other.asked)


def _check_segment_ids(reader: Reader, vertex: Vertex, names: Sequence[str], vertices: Sequence[Vertex]) -> None:
    if vertex.id and not re.fullmatch(STAGE_ID, names[-1]):
        what = f"stage `{vertex.id}` is sampled in segments, the last of which would be called `{names[-1]}`"
        reader.note(f"{vertex.place}.id", what, f"shorten it: a stage's name is {STAGE_ID_FORM}")
    for other in vertices:
        if other.id in names:
            what = f"stage `{other.id}` is called like a segment of `{vertex.id}`, which is sampled in {len(names) + 1}"
            reader.note(f"{other.place}.id", what, "rename one of them")


def _built_in(reader: Reader, spec: dict[str, Any], stage: dict[str, Any], operator: Operator, place: str) -> None:
    stage["config"] = reader.read(operator.config, stage["config"] or {}, f"{place}.config")
    _check_model(reader, spec, stage, operator, place)
    writes = list(writes_of(operator, stage["config"] or {}))
    for key, fixed in (("scope", operator.scope), ("effect", operator.effect), ("writes", writes)):
        if stage[key] and stage[key] != fixed:
            what = f"`{key}` of `{stage['op']}` is fixed: {', '.join(fixed) if key == 'writes' else fixed}"
            reader.note(f"{place}.{key}", what, f"leave `{key}` out")
        stage[key] = fixed
    if stage.get("per_token"):
        what = f"`{stage['op']}` knows itself what it writes for each token"
        reader.note(f"{place}.per_token", what, "leave `per_token` out")
    if (stage["config"] or {}).get("rewards") == {}:
        what = "`rewards` names none"
        reader.note(f"{place}.config.rewards", what, "give weights by stage, such as `rewards: {score: 1.0}`")
    _check_settings(reader, operator, stage["config"] or {}, f"{place}.config")


def _users_own(reader: Reader, stage: dict[str, Any], place: str) -> None:
    """A stage whose operator is a `module:function`."""
    op = stage["op"]
    if not re.fullmatch(FUNCTION_PATTERN, op):
        hint = suggest(op, OPERATORS, "operators")
        reader.note(f"{place}.op", f"there is no operator `{op}`", f"{hint} (or give {FUNCTION_FORM})")
        return
    if not stage["writes"]:
        reader.note(f"{place}.writes", f"`{op}` is no built-in operator", "say what it writes in `writes`")
    _check_writes(reader, stage["writes"] or [], place)
    _check_per_token(reader, stage.get("per_token") or [], stage["writes"] or [], place)
    if stage["model"] is not None:
        what = "only built-in operators run a model"
        reader.note(f"{place}.model", what, "leave `model` out")
    stage["scope"] = stage["scope"] or "partition"
    stage["effect"] = stage["effect"] or "pure"
    if stage["scope"] == "step":
        reader.note(f"{place}.scope", "no node can run a `step` scope yet", "use `partition`")


def _check_writes(reader: Reader, writes: list[str], place: str) -> None:
    """Outputs of a stage of the user's own, by names that say nothing else."""
    for position, name in enumerate(writes):
        path = f"{place}.writes[{position}]"
        if name in writes[:position]:
            reader.note(path, f"it writes `{name}` twice", "keep one of them")
        elif name in ROW:
            reader.note(path, f"`{name}` is what every row has already", "give the output another name")
        elif name in RAGGED:
            what = f"`{name}` is what a built-in operator writes, and more than a number"
            reader.note(path, what, "give the output another name")


def _check_per_token(reader: Reader, names: list[str], writes: list[str], place: str) -> None:
    for position, name in enumerate(names):
        path = f"{place}.per_token[{position}]"
        if name in names[:position]:
            reader.note(path, f"`per_token` has `{name}` twice", "keep one of them")
        elif name not in writes:
            what = f"`per_token` has `{name}`, which is not among its `writes`"
            reader.note(path, what, suggest(name, writes, "outputs"))
        elif name == "reward":
            what = "completions are compared by their `reward`, which is one number each"
            reader.note(path, what, "give the list another name; an `advantage` may be one number a token")


def _check_model(reader: Reader, spec: dict[str, Any], stage: dict[str, Any], operator: Operator, place: str) -> None:
    known = spec["models"] or {}
    if stage["model"] is None and operator.model:
        what = f"`{stage['op']}` needs a `model`"
        reader.note(f"{place}.model", what, suggest("", known, "models"))
    elif stage["model"] is not None and not operator.model:
        what = f"`{stage['op']}` uses no model"
        reader.note(f"{place}.model", what, "leave `model` out")
    elif stage["model"] is not None and stage["model"] not in known:
        what = f"there is no model `{stage['model']}`"
        reader.note(f"{place}.model", what, suggest(stage["model"], known, "models"))
    elif stage["model"] is not None and known[stage["model"]] is not None:
        origin = origin_of(known, stage["model"])
        _check_head(reader, stage, origin, (known.get(origin) or {}).get("head") or "", operator, f"{place}.model")


def _check_head(reader: Reader, stage: dict[str, Any], origin: str, has: str, operator: Operator, place: str) -> None:
    """Whether the stage's model, which is described as `origin` is and has its head, says what the stage asks of it."""
    wanted, model = head_of(operator, stage["config"] or {}), stage["model"]
    if wanted == has:
        return
    if wanted:
        what = f"it needs a model with `head: {wanted}`, and model `{model}` says which token comes next"
        hint = f"add `head: {wanted}` to `models.{origin}`, or name another model"
    else:
        what = f"it needs a language model, and model `{model}` has `head: {has}`"
        hint = "name another model" + (
            f", or write `loss: {{kind: {has}}}`" if "loss" in (stage["config"] or {}) else ""
        )
    reader.note(place, what, hint)


def _check_settings(reader: Reader, operator: Operator, config: Mapping[str, Any], place: str) -> None:
    """Settings that the stage's method, or its loss, has no use for."""
    method = method_of(operator, config)
    if method is not None and not method.compares and config.get("drop_flat_groups"):
        what = f"`{config['method']}` compares nothing within a group, so none is flat"
        reader.note(at(place, "drop_flat_groups"), what, "leave `drop_flat_groups` out")
    if method is not None and not method.is_rewarded and config.get("rewards"):
        what = f"`{config['method']}` goes by no reward"
        reader.note(at(place, "rewards"), what, "leave `rewards` out")
    if operator.trains is not None and config.get("correction") is not None and not is_corrected(operator, config):
        kind = loss_of(operator.trains, config)[0]
        is_of = "a loss of a critic" if head_of(operator, config) else "a loss of pairs, whoever said them"
        what = f"`correction` weighs probabilities, and `{kind}` is {is_of}"
        reader.note(at(place, "correction"), what, "leave `correction` out")


def _check_rounds(reader: Reader, stage: dict[str, Any], operator: Operator, place: str) -> None:
    """Whether a stage that has rounds leaves groups out at all, and says when there are enough."""
    until = (stage["rounds"] or {}).get("until")
    if stage["rounds"] is not None and not operator.leaves_out:
        hint = "write `rounds` in the `filter` stage, or in the `advantage` stage that drops groups"
        reader.note(f"{place}.rounds", f"`{stage['op']}` leaves no groups out, so none are to be made up for", hint)
    if until is not None and until > 1 and until != int(until):
        what = f"`until` is {until:g}, and groups are whole"
        reader.note(f"{place}.rounds.until", what, "give a number of groups, or a share of at most 1")


def _not_yet(reader: Reader, stage: dict[str, Any], place: str) -> None:
    """What the format knows and this version does not do."""
    if stage["effect"] == "effectful":
        what = "an effectful operator cannot be kept from running twice yet"
        reader.note(f"{place}.effect", what, "use one that may run again")
