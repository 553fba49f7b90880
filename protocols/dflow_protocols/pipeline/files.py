"""The files that a spec names, and their digests: a run is bound to their contents, on every host that works for it.

A function's digest covers its own file and those beside the spec that it imports, at any depth; what is installed is
the hosts' matter. Asked by clients when a run is submitted, and by engines before they work for it; both lend their
disk as a `Folder`.
"""

from __future__ import annotations

import ast
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from blake3 import blake3

from ..names import content_id
from .entries.parts import SAVED_ORDER, Folder, format_of, is_one_file, parts_of
from .entries.problem import EntryError
from .spec import Pipeline, Stage

ELSEWHERE = ".elsewhere"  # in a folder that stands for a spec's: what that names outside of itself


@dataclass(frozen=True, slots=True)
class Named:
    """`path`: of the key that names it first. `kind`: `file`, `folder`, `function`, or a format of
    data files (entries/parts.py)."""

    path: str
    name: str
    kind: str


def named_files(pipeline: Pipeline) -> Iterator[Named]:
    """What models, data and stages name; nothing where no engine opens files."""
    if not pipeline.opens_files:
        return
    for name, model in sorted(pipeline.models.items()):
        if name in pipeline.kept:
            continue  # it has those of another one
        if "path" in model:
            yield Named(f"models.{name}.path", model["path"], "folder")
        else:
            yield Named(f"models.{name}.init.config", model["init"]["config"], "file")
            yield Named(f"models.{name}.init.tokenizer", model["init"]["tokenizer"], "folder")
    for name, source in sorted(pipeline.data.items()):
        if kind := format_of(source):
            yield Named(f"data.{name}.{kind}", source[kind], kind)
    functions: dict[str, str] = {}  # where each is first named
    for index, stage in enumerate(pipeline.stages):
        if ":" in stage.op:
            functions.setdefault(stage.op, f"stages[{index}].op")
        for place, name in code_in(stage):
            functions.setdefault(name, f"stages[{index}].config.{place}")
    for function, path in functions.items():
        yield Named(path, function, "function")


def code_in(stage: Stage) -> Iterator[tuple[str, str]]:
    """(key, name) of what a stage's config names that is run. The config of a user's own stage holds what its function
    is given, and no key of it means anything here."""
    if ":" in stage.op:
        return
    config = stage.config
    if "function" in config:
        yield "function", config["function"]
    if "environment" in config:
        yield "environment.class", config["environment"]["class"]
    if ":" in (kind := config.get("loss", {}).get("kind", "")):
        yield "loss.kind", kind
    if stage.operator.methods and ":" in config["method"]:
        yield "method", config["method"]


def files_of(named: Named, folder: Folder) -> list[str]:
    """The files that it stands for, each as the spec might name it; none where nothing is there."""
    if named.kind == "function":
        file = beside(named.name.partition(":")[0], folder)
        return list(_code(file, folder)) if file is not None else []
    if named.kind == "folder":
        return [f"{named.name.rstrip('/')}/{file}" for file in _shown(folder.names(named.name) or ())]
    if named.kind == "file" or is_one_file(named.name, folder):
        return [named.name] if folder.read(named.name) is not None else []
    try:
        parts = parts_of(named.kind, named.name, folder)
    except EntryError:
        return []
    order = f"{named.name.rstrip('/')}/{SAVED_ORDER}"  # by which a saved data set is read
    return [*parts, order] if folder.read(order) is not None else parts


def is_code(key: str) -> bool:
    """Whether the files of a key are run."""
    return key.startswith("stages[")


def is_environment(named: Named) -> bool:
    """Whether it names a class that answers a model, and no function."""
    return named.path.endswith(".environment.class")


def is_model(key: str) -> bool:
    """Whether the files of a key are a model's weights, and what lies beside them."""
    return key.startswith("models.") and key.endswith(".path")


def with_own_code(pipeline: Pipeline) -> tuple[str, ...]:
    """Stages that run code which lies beside the spec, as its digest tells."""
    own = {named.name for named in named_files(pipeline) if is_code(named.path) and named.path in pipeline.digests}
    return tuple(stage.id for stage in pipeline.stages if {stage.op, *(n for _, n in code_in(stage))} & own)


def laid(name: str) -> str:
    """Where, in a folder that stands for the spec's on another host, a file lies that the spec names so: there as in
    the spec's own, but what that names by an absolute path, or above itself, is inside, too."""
    path = posixpath.normpath(name)
    if path.startswith("/"):
        return f"{ELSEWHERE}/root/{path.lstrip('/')}"
    parts = path.split("/")
    ups = sum(part == ".." for part in parts)  # all of them at the front
    return f"{ELSEWHERE}/up{ups}/{'/'.join(parts[ups:])}" if ups else path


def digest(named: Named, folder: Folder) -> str | None:
    """What the file holds now; None where there is none. Raises OSError for what cannot be read."""
    if named.kind == "function":
        file = beside(named.name.partition(":")[0], folder)
        return _digest_code(file, folder) if file is not None else None
    if named.kind == "folder":
        return _digest_folder(named.name, folder)
    if named.kind == "file" or is_one_file(named.name, folder):
        return _digest_file(named.name, folder)
    return _digest_parts(named, folder)


def beside(module: str, folder: Folder) -> str | None:
    """The file of `file.py` or `package.module` in the spec's folder."""
    if module.endswith(".py"):
        candidates = [str(PurePosixPath(module))]
    else:
        path = module.replace(".", "/")
        candidates = [f"{path}.py", f"{path}/__init__.py"]
    return next((file for file in candidates if folder.read(file) is not None), None)


def changed(pipeline: Pipeline, folder: Folder, which: str = "") -> Iterator[tuple[Named, str]]:
    """What here is not what the run was submitted with, and what it is instead, in words. `which`: only what is named
    by keys that begin so, or by this name."""
    for named in named_files(pipeline):
        meant = pipeline.digests.get(named.path)
        if meant is None or not (named.path.startswith(which) or named.name == which):
            continue
        try:
            found = digest(named, folder)
        except OSError as error:
            yield named, f"cannot be read: {error.strerror}"
            continue
        if found is None:
            yield named, "is not there"
        elif found != meant:
            yield named, f"differs from what the run was submitted with (digest {found[:8]}, not {meant[:8]})"


def _digest_file(name: str, folder: Folder) -> str | None:
    data = folder.read(name)
    return None if data is None else blake3(data, max_threads=blake3.AUTO).hexdigest()


def _digest_folder(name: str, folder: Folder) -> str | None:
    """Of the names and contents of all files in a folder, at any depth; hidden ones aside."""
    names = folder.names(name)
    if names is None:
        return None
    return content_id("folder", [[file, _digest_file(f"{name}/{file}", folder)] for file in _shown(names)])


def _shown(names: Sequence[str]) -> list[str]:
    files = sorted((file.split("/"), file) for file in names)
    return [file for parts, file in files if not any(part.startswith(".") for part in parts)]


def _digest_parts(named: Named, folder: Folder) -> str | None:
    """Of the names and contents of several data files, in the order in which they are read."""
    try:
        files = parts_of(named.kind, named.name, folder)
    except EntryError:
        return None
    return content_id("folder", [[file, _digest_file(file, folder)] for file in files]) if files else None


def _digest_code(file: str, folder: Folder) -> str:
    return content_id("code", [[name, _digest_file(name, folder)] for name in _code(file, folder)])


def _code(file: str, folder: Folder) -> list[str]:
    """A module's file and those beside the spec that it imports, at any depth."""
    seen: set[str] = set()
    waiting = [file]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += _imported(name, folder)
    return [name for _, name in sorted((name.split("/"), name) for name in seen)]


def _imported(file: str, folder: Folder) -> list[str]:
    """The files beside the spec that a module imports, also in its functions."""
    try:
        module = ast.parse(bytes(folder.read(file) or b""))
    except (SyntaxError, ValueError):
        return []
    package = PurePosixPath(file).parent.parts
    names: list[tuple[str, ...]] = []
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            names += [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            source = (*start, *(node.module.split(".") if node.module else ()))
            names += [source, *((*source, alias.name) for alias in node.names if alias.name != "*")]
    modules = [".".join(name[:depth]) for name in names for depth in range(1, len(name) + 1)]
    found = [beside(module, folder) for module in dict.fromkeys(modules)]
    return [name for name in found if name is not None]
