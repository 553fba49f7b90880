"""What is given where a pipeline is expected, and is something else: a folder, a model, data."""

from __future__ import annotations

import contextlib
from pathlib import Path

from dflow_protocols.pipeline.entries.rows import TABLES, TEXTS
from dflow_protocols.pipeline.grammar.layout import TOP

from .spectree import Marked, SpecFileError, fail

OF_A_MODEL = ("architectures", "model_type")  # keys that a model's configuration has, and no pipeline
MOST_NAMED = 4  # pipelines of a folder that an error names
BEGIN = "`dflow init` writes one to begin with"


def folder_error(path: Path) -> SpecFileError:
    """Why a folder is none, with the pipeline that may be meant."""
    names: list[str] = []
    with contextlib.suppress(OSError):  # it may be another user's
        names = sorted(each.name for each in path.iterdir() if each.suffix in (".yaml", ".yml"))
    if "pipeline.yaml" in names:
        names = ["pipeline.yaml"]
    elif (path / "config.json").is_file():
        hint = f"a model's weights are named in one: `models: {{policy: {{path: {path}}}}}`; {BEGIN}"
        return fail(str(path), "this is a folder with a model, and no pipeline", hint)
    found = ", ".join(f"`{path / name}`" for name in names[:MOST_NAMED])
    hint = f"give {'the one' if len(names) == 1 else 'one of those'} in it: {found}"
    if not names:
        hint = f"give the path of a spec; {BEGIN}"
    return fail(str(path), "this is a folder, and a pipeline is a file", hint)


def check_name(path: Path) -> None:
    """Raises SpecFileError for a file that holds data by its name."""
    kind = path.suffix.removeprefix(".")
    if kind in (*TEXTS, *TABLES):
        hint = f"it is named in one: `data: {{mine: {{{kind}: {path.name}}}}}`; {BEGIN}"
        raise fail(str(path), "this is data, and no pipeline", hint)


def check_layer(path: Path, tree: Marked) -> None:
    """Raises SpecFileError for what neither is a pipeline nor is laid over one."""
    if _keys(tree).intersection(OF_A_MODEL):
        hint = f"it is named in one: `models: {{policy: {{init: {{config: {path.name}}}}}}}`, or, with its weights, "
        hint += f"its folder: `{{path: {path.parent}}}`; {BEGIN}"
        raise fail(str(path), "this is a model's configuration, and no pipeline", hint)


def check_base(path: Path, tree: Marked) -> None:
    """Raises SpecFileError for what is no pipeline, however many keys of it were misspelt."""
    keys = _keys(tree)
    if keys and keys.isdisjoint(TOP):
        hint = f"a pipeline has `name`, `steps`, `models` and `stages`; {BEGIN}"
        raise fail(str(path), "this is no pipeline: none of its keys is a key of one", hint)


def _keys(tree: Marked) -> set[str]:
    return set(tree.content) if isinstance(tree.content, dict) else set()
