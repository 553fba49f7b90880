"""Digests of the files that a spec names, so that a run is bound to their contents and a missing one is told early."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from blake3 import blake3

from dflow_protocols.names import content_id
from dflow_protocols.pipeline import Pipeline, Problem
from dflow_protocols.pipeline.problem import nearest, suggest


def digest_files(pipeline: Pipeline, base: Path) -> tuple[dict[str, str], list[Problem]]:
    """Digest by the path of the key that names the file, such as `models.policy.init.config`; and what is missing.

    Relative paths start from `base`. A function's own file is digested if it lies under `base`; what is installed is
    the hosts' matter. The emulated engine reads no files, so none need to be there for it.
    """
    if pipeline.engine == "emulated":
        return {}, []
    digests: dict[str, str] = {}
    problems: list[Problem] = []
    for path, name, kind in _named(pipeline):
        found = base / name
        if found.is_dir() if kind == "folder" else found.is_file():
            digests[path] = digest_folder(found) if kind == "folder" else digest_file(found)
        else:
            problems.append(_missing(path, name, kind, found, base))
    functions: dict[str, str] = {}  # where each is first named
    for index, stage in enumerate(pipeline.stages):
        if ":" in stage.op:
            functions.setdefault(stage.op, f"stages[{index}].op")
        if "function" in stage.config:
            functions.setdefault(stage.config["function"], f"stages[{index}].config.function")
    for function, path in functions.items():
        _function(path, function, base, digests, problems)
    return digests, problems


def _named(pipeline: Pipeline) -> Iterator[tuple[str, str, str]]:
    """(path, file name, `file` or `folder`) of what models and data name."""
    for name, model in sorted(pipeline.models.items()):
        if "path" in model:
            yield f"models.{name}.path", model["path"], "folder"
        else:
            yield f"models.{name}.init.config", model["init"]["config"], "file"
            yield f"models.{name}.init.tokenizer", model["init"]["tokenizer"], "folder"
    for name, source in sorted(pipeline.data.items()):
        if "jsonl" in source:
            yield f"data.{name}.jsonl", source["jsonl"], "file"


def digest_file(path: Path) -> str:
    """BLAKE3 of a file's bytes."""
    hasher = blake3(max_threads=blake3.AUTO)
    hasher.update_mmap(path)
    return hasher.hexdigest()


def digest_folder(path: Path) -> str:
    """Of the names and contents of all files in a folder, at any depth; hidden ones aside."""
    files = sorted(file for file in path.rglob("*") if file.is_file())
    names = [(file, file.relative_to(path)) for file in files]
    seen = [[str(name), digest_file(file)] for file, name in names if not any(p.startswith(".") for p in name.parts)]
    return content_id("folder", seen)


def _missing(path: str, name: str, kind: str, found: Path, base: Path) -> Problem:
    what = f"there is no {kind} `{name}`"
    folder = found.parent
    beside = [item.name for item in folder.iterdir()] if folder.is_dir() else []
    near = nearest(found.name, beside)
    if near is not None and near != found.name:
        return Problem(path, what, f"did you mean `{near}`?")
    if near is not None:
        return Problem(path, what, f"`{name}` is there, but is no {kind}")
    return Problem(path, what, f"paths start from the spec's folder, {base}")


def _function(path: str, function: str, base: Path, digests: dict[str, str], problems: list[Problem]) -> None:
    module, _, name = function.partition(":")
    file = find_module(module, base)
    if file is None:
        hint = f"put it into the spec's folder, {base}, or install it"
        problems.append(Problem(path, f"there is no module `{module}`", hint))
        return
    try:
        defined = _defined(ast.parse(file.read_bytes()))
    except (SyntaxError, ValueError) as error:
        line = f":{error.lineno}" if isinstance(error, SyntaxError) else ""
        problems.append(Problem(path, f"`{file.name}{line}` is not Python: {error}", "correct it first"))
        return
    if name not in defined and "*" not in defined:
        problems.append(Problem(path, f"`{module}` has no `{name}`", suggest(name, defined, "functions")))
    if file.is_relative_to(base):
        digests[path] = digest_file(file)


def find_module(module: str, base: Path) -> Path | None:
    """The file of `file.py` or `package.module`: in `base` first, then where Python looks. Nothing is imported."""
    if module.endswith(".py"):
        return base / module if (base / module).is_file() else None
    parts = Path(*module.split("."))
    for root in (base, *map(Path, sys.path)):
        for file in (root / parts.with_suffix(".py"), root / parts / "__init__.py"):
            if file.is_file():
                return file
    return None


def _defined(tree: ast.Module) -> set[str]:
    """Names that a module defines at its top, `*` for those it takes from another one unseen."""
    names: set[str] = set()
    for node in tree.body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.AsyncFunctionDef(name=name):
                names.add(name)
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                names.update(alias.asname or alias.name for alias in aliases)
            case ast.Assign(targets=targets):
                names.update(target.id for target in targets if isinstance(target, ast.Name))
            case ast.If() | ast.Try():
                names.add("*")  # what holds there is not known without running it
    return names
