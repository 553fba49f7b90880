"""A spec in layers: a file, overlays and `--set` laid over it in order, and at the end what `algorithm` stands for.

Mappings are laid over each other as JSON Merge Patch (RFC 7396) has it, key by key, null taking a key away; stages by
their ids; other lists as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dflow_protocols.pipeline.grammar.problem import suggest
from dflow_protocols.pipeline.recipes.catalog import ROLES
from dflow_protocols.pipeline.recipes.expansion import expand, give_way, recipe_of

from .spectree import Marked, fail, from_plain, read_yaml, retrace, stage_id, stage_ids, strip


def lay_all(base: Marked, overlays: Sequence[Marked], texts: Sequence[str]) -> Marked:
    """`base` under overlays, the later ones above, and under each `--set`; with the stages and settings of the
    algorithm that the uppermost of them names. What lies below that one gives way to its algorithm, and its algorithm
    to its own keys and to what lies above. `--set algorithm=NAME` counts as the last overlay. Raises SpecFileError."""
    sets = [_assignment(text) for text in texts]
    named = [Marked({"algorithm": value}, value.where) for keys, value in sets if keys == ["algorithm"]]
    layers = [*overlays, *named]
    naming = [over for over in layers if isinstance(over.content, dict) and "algorithm" in over.content]
    for over in layers:
        base = lay_over(_giving_way(base, over) if naming and over is naming[-1] else base, over)
    for keys, value in sets:
        if keys != ["algorithm"]:
            base = _put(_with_draft(base, keys), keys, value)
    return _expanded(base)


def lay_over(base: Marked, over: Marked) -> Marked:
    """An overlay laid over what is below it."""
    if not isinstance(base.content, dict) or not isinstance(over.content, dict):
        return over
    stages, below = over.content.get("stages"), base.content.get("stages", Marked([], over.where))
    if stages is None or not _has_names(stages) or not (stage_ids(below) or below.content == []):
        return merge(base, over)
    rest = Marked({key: value for key, value in over.content.items() if key != "stages"}, over.where)
    laid: dict[str, Marked] = {**base.content, "stages": _lay_stages(below, stages)}
    return merge(Marked(laid, base.where), rest)


def _expanded(tree: Marked) -> Marked:
    """With the stages and settings that `algorithm` stands for, and without what was taken away."""
    named = tree.content.get("algorithm") if isinstance(tree.content, dict) else None
    return _kept(tree if named is None else retrace(expand(strip(tree)), tree, named.where))


def merge(base: Marked, over: Marked) -> Marked:
    """Mappings key by key; anything else is replaced."""
    if not isinstance(over.content, dict):
        return Marked(over.content, over.where, is_removed=over.content is None)
    below = base.content if isinstance(base.content, dict) else {}
    laid = {key: merge(below.get(key, Marked(None, value.where)), value) for key, value in over.content.items()}
    return Marked(below | laid, base.where)


def _kept(tree: Marked) -> Marked:
    if isinstance(tree.content, dict):
        inner = {key: _kept(value) for key, value in tree.content.items() if not value.is_removed}
        return Marked(inner, tree.where)
    return Marked([_kept(value) for value in tree.content], tree.where) if isinstance(tree.content, list) else tree


def _giving_way(base: Marked, over: Marked) -> Marked:
    """`base` without what the algorithm that `over` names says otherwise."""
    name = strip(over)["algorithm"]
    is_mapping = isinstance(base.content, dict)
    return retrace(give_way(strip(base), str(name)), base, base.where) if is_mapping else base


def _has_names(stages: Marked) -> bool:
    """Whether all stages are told by their ids, as a list of them or as a mapping."""
    return isinstance(stages.content, dict) or bool(stage_ids(stages))


def _named(stages: Marked) -> Iterator[tuple[str, Marked]]:
    if not isinstance(stages.content, dict):
        yield from ((stage_id(stage), stage) for stage in stages.content)
        return
    for name, stage in stages.content.items():
        label = {"id": Marked(name, stage.where)}
        yield name, Marked(label | stage.content, stage.where) if isinstance(stage.content, dict) else stage


def _lay_stages(base: Marked, over: Marked) -> Marked:
    """Stages by their ids; a new one stands in front of the one that its `before` names, else at the end."""
    stages = list(base.content)
    for name, stage in _named(over):
        ids = stage_ids(Marked(stages, base.where))
        if stage.content is None:
            del stages[_place(name, ids, stage.where)]
            continue
        own = stage.content if isinstance(stage.content, dict) else {}
        before = own.get("before")
        laid = Marked({key: value for key, value in own.items() if key != "before"}, stage.where) if own else stage
        if name in ids:
            stages[ids[name]] = merge(stages[ids[name]], laid)
        else:
            at = len(stages) if before is None else _place(str(before.content), ids, before.where)
            stages.insert(at, merge(Marked({}, stage.where), laid))
    return Marked(stages, base.where)


def _place(name: str, ids: dict[str, int], where: str) -> int:
    if name not in ids:
        raise fail(where, f"there is no stage `{name}`", suggest(name, ids, "stages"))
    return ids[name]


def _assignment(text: str) -> tuple[list[str], Marked]:
    """What one `--set` names, such as `stages.roll.config.prompts=48`, and what it says."""
    where = f"--set {text}"
    key, equals, value = text.partition("=")
    if not equals or not all(key.split(".")):
        raise fail(where, "this sets nothing", "write `--set KEY=VALUE`, such as `--set params.warmup=2`")
    inner = read_yaml(value, where).content if value.strip() else None
    plain = strip(Marked(inner, where))
    return key.split("."), Marked(from_plain(plain, where).content, where, is_removed=plain is None)


def _with_draft(base: Marked, keys: list[str]) -> Marked:
    """With a place for what is set of a stage that the algorithm is yet to make."""
    if len(keys) < 3 or keys[0] != "stages" or keys[1] not in ROLES or not isinstance(base.content, dict):
        return base
    if recipe_of(strip(base)) is None:
        return base
    stages = base.content.get("stages", Marked([], base.where))
    if not isinstance(stages.content, list) or keys[1] in stage_ids(stages):
        return base
    draft = Marked({"id": Marked(keys[1], base.where)}, base.where)
    return Marked(base.content | {"stages": Marked([*stages.content, draft], stages.where)}, base.where)


def _put(base: Marked, keys: list[str], value: Marked, parent: str = "") -> Marked:
    if not keys:
        return value
    first, *rest = keys
    ids = stage_ids(base) if parent == "stages" else {}
    if ids:
        stages = list(base.content)
        at = _place(first, ids, value.where)
        stages[at] = _put(stages[at], rest, value, first)
        return Marked([stage for stage in stages if not stage.is_removed], base.where)
    content = base.content if isinstance(base.content, dict) else {}
    if parent == "params" and first not in content:
        raise fail(value.where, f"there is no param `{first}`", suggest(first, content, "params"))
    inner = _put(content.get(first, Marked({}, value.where)), rest, value, first)
    return Marked(content | {first: inner}, base.where)
