"""Which engine computes which stage, and what that lets a run claim of its weights."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from .grammar.engines import DEVICES, ENGINES, EXACT, GRADIENTS, REPLAY, ROLLOUTS, EngineKind
from .grammar.problem import Problem
from .grammar.scoring import EFFECTFUL
from .grammar.shape import Reader
from .grammar.signatures import Operator, operator_of
from .graph import Vertex


def share_stages(spec: dict[str, Any], stages: Sequence[dict[str, Any]]) -> None:
    """A pipeline whose own engine only samples: that is written with the stages that sample, and the engine beside it,
    which does the rest, becomes the pipeline's. So there is one canonical form of either way to write it."""
    named = spec["engine"]
    rest = ENGINES[named].rest if named is not None else ""
    if not rest:
        return
    spec["engine"] = rest
    for stage in stages:
        if stage.get("engine") is None and operator_of(stage["op"] or "").samples:
            stage["engine"] = named


def check_stage_engine(
    reader: Reader, spec: dict[str, Any], stage: dict[str, Any], operator: Operator, place: str
) -> None:
    """Whether the stage's engine can do what its operator asks. The pipeline's own engine is not written again."""
    if stage.get("engine") == spec["engine"]:
        stage.pop("engine", None)
    name = stage.get("engine") or spec["engine"]
    asked = {
        role for role, is_asked in ((ROLLOUTS, operator.is_on_partitions), (GRADIENTS, operator.trains)) if is_asked
    }
    if not check_engine(reader, name, asked, f"{place}.engine", f"`{stage['op']}` needs it"):
        return
    kind = ENGINES[name] if name is not None else EngineKind()
    config = stage["config"] or {}
    if kind.samples_only and not operator.samples:
        what = f"the engine `{name}` only samples, and `{stage['op']}` samples nothing"
        reader.note(f"{place}.engine", what, f"leave it out: `{kind.rest}` does this stage")
    elif not kind.has_nucleus and not config.get("greedy") and (config.get("top_p") or 1) < 1:
        what = f"`top_p` is {config['top_p']:g}, and the engine `{name}` tells only probabilities of what is left then"
        hint = f"leave `top_p` out, or write `engine: {kind.rest}` in this stage"
        reader.note(f"{place}.config.top_p", what, hint)


def check_engine(reader: Reader, name: str | None, asked: Collection[str], place: str, why: str) -> bool:
    """Whether the engine does all that is asked, which is noted where not."""
    missing = sorted(set(asked) - ENGINES[name].does) if name is not None else []
    if missing:
        able = [other for other, kind in ENGINES.items() if kind.does >= set(asked)]
        what = f"the engine `{name}` does no {' and no '.join(missing)}, and {why}"
        reader.note(place, what, f"such as `engine: {able[0]}`" if able else "no engine does")
    return not missing


def settle_claim(spec: dict[str, Any], vertices: Sequence[Vertex]) -> Iterator[Problem]:
    """What the weights are a function of: what all engines claim, unless the spec says. Yields what cannot be so."""
    kinds = {stage["id"]: ENGINES[stage.get("engine") or spec["engine"]] for stage in spec["stages"]}
    if spec["reproducibility"] is None:
        claims = [kind.claims for kind in kinds.values() if kind.claims != EXACT]
        spec["reproducibility"] = claims[0] if claims else REPLAY if spec["async"] else EXACT
    yield from _check_async(spec)
    for stage, place in _told(spec, vertices):
        kind = kinds[stage["id"]]
        if _is_stochastic(stage) and spec["reproducibility"] == EXACT:
            what = f"stage `{stage['id']}`: it is stochastic, but `reproducibility` is exact"
            yield Problem(f"{place}.effect", what, f"set `reproducibility: {REPLAY}`")
        lacking = [word for word in stage["requires"] if word in DEVICES and word not in kind.exact_on]
        if spec["reproducibility"] == EXACT and lacking:
            what = (
                f"`reproducibility` is exact, and stage `{stage['id']}` requires `{lacking[0]}`, where the engine "
                f"`{stage['engine']}` does not repeat its bytes"
            )
            hint = f"write `reproducibility: {kind.claims}`, or `requires: [{', '.join(kind.exact_on)}]` in the stage"
            yield Problem(f"{place}.requires", what, hint)


def _told(spec: Mapping[str, Any], vertices: Sequence[Vertex]) -> Iterator[tuple[dict[str, Any], str]]:
    """Each stage of which mistakes are told, and its place."""
    pairs = zip(spec["stages"], vertices, strict=True)
    return ((stage, vertex.place) for stage, vertex in pairs if not vertex.is_segment)


def _check_async(spec: Mapping[str, Any]) -> Iterator[Problem]:
    """Which version a rollout is of is a matter of who was how far, and no other key may say otherwise."""
    most = spec["async"] and spec["async"]["max_staleness"]
    if most and spec["lag"]:
        what = f"`lag` is {spec['lag']}, and `async` lets rollouts be up to {most} steps behind"
        yield Problem("lag", what, "leave one of them out: `lag` is exact, `async` waits less")
    elif most and spec["reproducibility"] == EXACT:
        what = "`reproducibility` is exact, and with `async` rollouts are of whatever version there is"
        yield Problem("async", what, f"write `lag: {most}` in its place, or `reproducibility: {REPLAY}`")


def _is_stochastic(stage: Mapping[str, Any]) -> bool:
    """Whether the same inputs may give something else another time."""
    return stage["effect"] == "stochastic" or stage["config"].get("function") in EFFECTFUL


def check_served(spec: dict[str, Any], vertices: Sequence[Vertex]) -> Iterator[Problem]:
    """An engine that holds a model of its own beside the trained one has room for one."""
    served: dict[str, dict[str, Any]] = {}
    for stage, place in _told(spec, vertices):
        name = stage.get("engine") or spec["engine"]
        if not ENGINES[name].samples_only:
            continue
        first = served.setdefault(name, stage)
        if first["model"] != stage["model"]:
            what = (
                f"the engine `{name}` samples from model `{first['model']}` in stage `{first['id']}` and from "
                f"`{stage['model']}` in `{stage['id']}`, and it serves one model of a run"
            )
            yield Problem(f"{place}.engine", what, f"write `engine: {ENGINES[name].rest}` in one of them")
