"""A spec as a tree in which every value remembers the line that it was written on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import yaml

MAX_DEPTH = 50
MAX_VALUES = 100_000  # of a file with its aliases written out: nine lines of them can stand for a billion

Content: TypeAlias = "dict[str, Marked] | list[Marked] | Any"


@dataclass(frozen=True, slots=True)
class Marked:
    """A value and where it was written, such as `arithmetic.yaml:14`. Mappings and lists hold Marked values.
    `is_removed`: a layer above took it away, by null."""

    content: Content
    where: str
    is_removed: bool = False


@dataclass(frozen=True, slots=True)
class Mistake:
    where: str
    what: str
    hint: str


class SpecFileError(Exception):
    """A spec that cannot run. `problems`: every mistake found, each with `where`, `what` and `hint`."""

    def __init__(self, problems: list[Mistake]) -> None:
        self.problems = problems
        super().__init__("\n".join(f"{problem.where}: {problem.what}" for problem in problems))


def fail(where: str, what: str, hint: str) -> SpecFileError:
    return SpecFileError([Mistake(where, what, hint)])


def read_yaml(text: str, name: str) -> Marked:
    """Parse YAML. `name`: how the user called the file. Raises SpecFileError."""
    try:
        loader = yaml.SafeLoader(text)
    except yaml.YAMLError as error:  # a character that no YAML may hold
        what = " ".join(str(error).split())
        raise fail(name, f"this is not YAML: {what}", "take the character out; a spec is text in UTF-8") from None
    try:
        node = loader.get_single_node()
        if node is None:
            raise fail(name, "the file is empty", "start with `name: my_pipeline`")
        return _Reading(loader, name).mark(node, MAX_DEPTH)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{name}:{mark.line + 1}" if mark else name
        hint = "look for a missing `:`, `,` or bracket, or a wrong indentation, there or just above"
        raise fail(place, f"this is not YAML: {error.problem or error.context}", hint) from None
    except yaml.YAMLError as error:
        raise fail(name, f"this is not YAML: {error}", "write it as UTF-8 text") from None
    except RecursionError:
        raise fail(
            name, f"this is nested more than {MAX_DEPTH} deep", "look for a bracket that is not closed"
        ) from None
    finally:
        loader.dispose()


@dataclass(slots=True)
class _Reading:
    """One text on its way from YAML's nodes to marked values. `values`: how many were read so far."""

    loader: yaml.SafeLoader
    name: str
    values: int = 0

    def mark(self, node: yaml.Node, depth: int) -> Marked:
        where = f"{self.name}:{node.start_mark.line + 1}"
        self.values += 1
        if not depth:
            raise fail(where, f"this is nested more than {MAX_DEPTH} deep", "an alias (`*name`) may contain itself")
        if self.values > MAX_VALUES:
            hint = "an alias (`*name`) stands for all that it names, each time"
            raise fail(self.name, f"it has more than {MAX_VALUES} values", hint)
        if isinstance(node, yaml.SequenceNode):
            return Marked([self.mark(item, depth - 1) for item in node.value], where)
        if not isinstance(node, yaml.MappingNode):
            return Marked(self._scalar(node, where), where)
        own = {key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"}
        counted = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key in sorted(own):
            if counted.count(key) > 1:
                raise fail(where, f"`{key}` is written twice", "keep one of them")
        self.loader.flatten_mapping(node)  # `<<: *name`: merged keys come first, own ones replace them
        content: dict[str, Marked] = {}
        for key, value in node.value:
            inner = self.mark(value, depth - 1)
            label = key.value if isinstance(key, yaml.ScalarNode) else "?"
            content[label] = Marked(inner.content, f"{self.name}:{key.start_mark.line + 1}")
        return Marked(content, where)

    def _scalar(self, node: yaml.Node, where: str) -> Any:
        try:
            return self.loader.construct_object(node)
        except (ValueError, KeyError, AttributeError):  # what the library's own readers of dates and numbers let out
            kind = node.tag.rpartition(":")[2]
            what = f"`{str(node.value)[:40]}` is written like a value of kind `{kind}`, and is none"
            raise fail(where, what, "put it in quotes if a text is meant") from None


def from_plain(value: Any, where: str) -> Marked:
    """A tree all of whose values were written at one place."""
    if isinstance(value, dict):
        return Marked({str(key): from_plain(inner, where) for key, inner in value.items()}, where)
    if isinstance(value, list | tuple):
        return Marked([from_plain(inner, where) for inner in value], where)
    return Marked(value, where)


def retrace(value: Any, tree: Marked, where: str) -> Marked:
    """A plain value that was made of `tree`: what is left of it has its marks, what is new was written at `where`."""
    if strip(tree) == value:
        return tree
    if isinstance(value, dict) and isinstance(tree.content, dict):
        written = tree.content
        inner = {key: retrace(item, written.get(key, Marked(None, where)), where) for key, item in value.items()}
        return Marked(inner, tree.where)
    if isinstance(value, list) and isinstance(tree.content, list) and stage_ids(tree):
        known = {stage_id(stage): stage for stage in tree.content}
        stages = [known.get(item["id"], Marked(None, where)) for item in value]
        return Marked([retrace(item, stage, where) for item, stage in zip(value, stages, strict=True)], tree.where)
    return from_plain(value, where)


def stage_ids(stages: Marked) -> dict[str, int]:
    """Place by id, if this is a list of mappings that all have one."""
    if not isinstance(stages.content, list):
        return {}
    ids = [stage_id(stage) for stage in stages.content]
    return {name: place for place, name in enumerate(ids)} if all(ids) else {}


def stage_id(stage: Marked) -> str:
    found = stage.content.get("id") if isinstance(stage.content, dict) else None
    return found.content if found is not None and isinstance(found.content, str) else ""


def strip(tree: Marked) -> Any:
    """The plain value."""
    if isinstance(tree.content, dict):
        return {key: strip(value) for key, value in tree.content.items()}
    if isinstance(tree.content, list):
        return [strip(value) for value in tree.content]
    return tree.content


def places(tree: Marked, path: str = "") -> Iterator[tuple[str, str]]:
    """(path, where) of every value, paths as in `stages[3].config.loss`."""
    yield path, tree.where
    if isinstance(tree.content, dict):
        for key, value in tree.content.items():
            yield from places(value, f"{path}.{key}" if path else key)
    elif isinstance(tree.content, list):
        for index, value in enumerate(tree.content):
            yield from places(value, f"{path}[{index}]")


def place_of(path: str, known: dict[str, str]) -> str:
    """Where the value at `path` was written; if it is not there, where what it is missing from was."""
    while path not in known:
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    return known[path]
