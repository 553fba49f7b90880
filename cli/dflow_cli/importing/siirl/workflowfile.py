"""siiRL's workflow files: `dag_id` and `nodes`, in YAML or JSON, with `!Ref` to values under `global_config`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ...errors import CliError
from .workflow import Node, Workflow, make_workflow

NO_WORKFLOW = "a workflow has `dag_id`, and `nodes` that are a list"


_FORMS: Sequence[tuple[str, type, str]] = (
    ("dependencies", list, "a list of nodes"),
    ("agent_group", int, "a whole number"),
    ("config", dict, "a mapping"),
    ("agent_options", dict, "a mapping"),
)


@dataclass(frozen=True, slots=True)
class _Reference:
    path: str


class _Loader(yaml.SafeLoader):
    """As siiRL reads its files."""


def _reference(loader: yaml.SafeLoader, node: yaml.Node) -> _Reference:
    return _Reference(str(node.value))


_Loader.add_constructor("!Ref", _reference)


def read_workflow(path: Path) -> Workflow:
    """Raises CliError for what is no workflow of siiRL, with the place and the remedy."""
    where = str(path)
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # a SafeLoader: it makes no objects of Python
    except (UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where}:{mark.line + 1}" if mark else where
        raise CliError(f"this is not YAML: {error}", where=place, hint=NO_WORKFLOW) from None
    if not isinstance(raw, Mapping) or not raw.get("dag_id") or not isinstance(raw.get("nodes"), list):
        raise CliError("this is no workflow of siiRL", where=where, hint=NO_WORKFLOW)
    known = raw.get("global_config") or {}
    return make_workflow(str(raw["dag_id"]), [_node(each, known, where) for each in raw["nodes"]], where)


def _node(raw: Any, known: Any, where: str) -> Node:
    if not isinstance(raw, Mapping) or not raw.get("node_id") or not raw.get("node_type"):
        told = raw.get("node_id", "one") if isinstance(raw, Mapping) else "one"
        raise CliError(f"node `{told}` lacks its `node_id` or `node_type`", where=where, hint="add it")
    for key, kind, form in _FORMS:
        if not isinstance(raw.get(key) or kind(), kind):
            raise CliError(f"the `{key}` of node `{raw['node_id']}` is not {form}", where=where, hint="correct it")
    return Node(
        id=str(raw["node_id"]),
        func=str(raw.get("executable_ref") or raw.get("filter_plugin") or ""),
        needs=tuple(map(str, raw.get("dependencies") or ())),
        type=str(raw["node_type"]).upper(),
        role=str(raw.get("node_role") or "DEFAULT").upper(),
        forward_only=bool(raw.get("only_forward_compute")),
        agent=raw.get("agent_group") or 0,
        config=_resolved(raw.get("config") or {}, known, where),
        options=_resolved(raw.get("agent_options") or {}, known, where),
    )


def _resolved(value: Any, known: Any, where: str) -> Any:
    """A value with each `!Ref global_config.a.b` put in."""
    match value:
        case Mapping():
            return {str(key): _resolved(inner, known, where) for key, inner in value.items()}
        case list():
            return [_resolved(inner, known, where) for inner in value]
        case _Reference(path):
            found: Any = {"global_config": known}
            for part in path.split("."):
                found = found.get(part) if isinstance(found, Mapping) else None
            if found is None:
                raise CliError(f"`!Ref {path}` leads nowhere", where=where, hint="name a value under `global_config`")
            return found
    return value
