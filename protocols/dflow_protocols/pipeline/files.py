"""The files that a spec names, and their digests: a run is bound to their contents, on every host that works for it.

A function's digest covers its own file and those beside the spec that it imports, at any depth; what is installed is
the hosts' matter. Read by clients when a run is submitted, and by engines before they work for it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from ..names import content_id
from .spec import Pipeline


@dataclass(frozen=True, slots=True)
class Named:
    """`path`: of the key that names it first. `kind`: `file`, `folder` or `function`."""

    path: str
    name: str
    kind: str


def named_files(pipeline: Pipeline) -> Iterator[Named]:
    """What models, data and stages name; nothing where no engine opens files."""
    if not pipeline.opens_files:
        return
    for name, model in sorted(pipeline.models.items()):
        if "path" in model:
            yield Named(f"models.{name}.path", model["path"], "folder")
        else:
            yield Named(f"models.{name}.init.config", model["init"]["config"], "file")
            yield Named(f"models.{name}.init.tokenizer", model["init"]["tokenizer"], "folder")
    for name, source in sorted(pipeline.data.items()):
        if "jsonl" in source:
            yield Named(f"data.{name}.jsonl", source["jsonl"], "file")
    functions: dict[str, str] = {}  # where each is first named
    for index, stage in enumerate(pipeline.stages):
        if ":" in stage.op:
            functions.setdefault(stage.op, f"stages[{index}].op")
        if "function" in stage.config:
            functions.setdefault(stage.config["function"], f"stages[{index}].config.function")
    for function, path in functions.items():
        yield Named(path, function, "function")


def digest(named: Named, base: Path) -> str | None:
    """What the file holds now; None where there is none in `base`. Raises OSError for what cannot be read."""
    if named.kind == "function":
        file = beside(named.name.partition(":")[0], base)
        return _digest_code(file, base) if file is not None else None
    found = base / named.name
    if named.kind == "folder":
        return _digest_folder(found) if found.is_dir() else None
    return _digest_file(found) if found.is_file() else None


def beside(module: str, base: Path) -> Path | None:
    """The file of `file.py` or `package.module` in the spec's folder."""
    if module.endswith(".py"):
        candidates = [base / module]
    else:
        parts = base.joinpath(*module.split("."))
        candidates = [parts.with_name(parts.name + ".py"), parts / "__init__.py"]
    return next((file for file in candidates if file.is_file()), None)


def changed(pipeline: Pipeline, base: Path, which: str = "") -> Iterator[tuple[Named, str]]:
    """What here is not what the run was submitted with, and what it is instead, in words. `which`: only what is named
    by keys that begin so, or by this name."""
    for named in named_files(pipeline):
        meant = pipeline.digests.get(named.path)
        if meant is None or not (named.path.startswith(which) or named.name == which):
            continue
        try:
            found = digest(named, base)
        except OSError as error:
            yield named, f"cannot be read: {error.strerror}"
            continue
        if found is None:
            yield named, "is not there"
        elif found != meant:
            yield named, f"differs from what the run was submitted with (digest {found[:8]}, not {meant[:8]})"


def _digest_file(path: Path) -> str:
    hasher = blake3(max_threads=blake3.AUTO)
    hasher.update_mmap(path)
    return hasher.hexdigest()


def _digest_folder(path: Path) -> str:
    """Of the names and contents of all files in a folder, at any depth; hidden ones aside."""
    files = sorted(file for file in path.rglob("*") if file.is_file())
    names = [(file, file.relative_to(path)) for file in files]
    seen = [[str(name), _digest_file(file)] for file, name in names if not any(p.startswith(".") for p in name.parts)]
    return content_id("folder", seen)


def _digest_code(file: Path, base: Path) -> str:
    seen: dict[Path, str] = {}
    waiting = [file]
    while waiting:
        path = waiting.pop()
        if path not in seen:
            seen[path] = _digest_file(path)
            waiting += _imported(path, base)
    return content_id("code", [[str(path.relative_to(base)), seen[path]] for path in sorted(seen)])


def _imported(file: Path, base: Path) -> list[Path]:
    """The files in `base` that a module imports, also in its functions."""
    try:
        module = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return []
    package = file.parent.relative_to(base).parts
    names: list[tuple[str, ...]] = []
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            names += [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            source = (*start, *(node.module.split(".") if node.module else ()))
            names += [source, *((*source, alias.name) for alias in node.names if alias.name != "*")]
    modules = [".".join(name[:depth]) for name in names for depth in range(1, len(name) + 1)]
    found = [beside(module, base) for module in dict.fromkeys(modules)]
    return [path for path in found if path is not None]
