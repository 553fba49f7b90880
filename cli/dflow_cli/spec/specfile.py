"""Spec files: YAML (or Python) with overlays and `--set`, checked, every mistake with its file and line."""

from __future__ import annotations

import runpy
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dflow_protocols.pipeline import Pipeline, Problem, SpecError
from dflow_protocols.pipeline.doubts import doubts
from dflow_protocols.pipeline.grammar.problem import placed

from .enginelook import missing_here
from .filedigest import digest_files
from .layers import lay_all
from .modellook import look_at_models
from .notspec import check_base, check_layer, check_name, folder_error
from .spectree import Marked, Mistake, SpecFileError, fail, from_plain, place_of, places, read_yaml
from .spectree import strip as plain

__all__ = ["Loaded", "Mistake", "SpecFileError", "load"]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A pipeline ready to submit. `base`: the spec's folder, absolute, where its relative paths start. `warnings`: what
    can run, and is probably not what was meant."""

    pipeline: Pipeline
    base: Path
    warnings: tuple[Mistake, ...] = ()


def load(path: Path, overlays: Sequence[Path] = (), sets: Sequence[str] = ()) -> Loaded:
    """Read a spec, lay overlays over it in order, then apply each `--set`; check it and the files that it names.

    A `.py` spec defines `pipeline = Pipeline(...)`; it is run. Raises SpecFileError with every mistake.
    """
    base = path.absolute().parent
    if path.suffix == ".py":
        pipeline = _run(path)
        tree = from_plain(pipeline.to_dict(), str(path))
        known = {"": str(path)}
    else:
        tree = _layer(path)
        check_base(path, tree)
        known = {}
    tree = lay_all(tree, [_layer(overlay) for overlay in overlays], sets)
    known |= dict(places(tree))
    try:
        pipeline = Pipeline.from_dict(plain(tree))
    except SpecError as error:
        raise SpecFileError(_located(error.problems, known)) from None
    digests, found = digest_files(pipeline, base)
    found.include(look_at_models(pipeline, base))
    written = [stage.get("id") for stage in plain(tree).get("stages") or ()]
    if found.problems:
        raise SpecFileError(_located(_as_written(found.problems, pipeline, written), known))
    warnings = _as_written([*doubts(pipeline), *found.warnings, *missing_here(pipeline)], pipeline, written)
    return Loaded(pipeline.with_digests(digests), base, tuple(_located(warnings, known)))


def _as_written(problems: Sequence[Problem], pipeline: Pipeline, written: Sequence[str]) -> list[Problem]:
    """With paths in the spec as it was written. `written`: the ids of its stages; the pipeline may have others, too."""
    stages = [stage.id for stage in pipeline.stages]
    return [placed(problem, stages, written, "stages") for problem in problems]


def _located(problems: Sequence[Problem], known: dict[str, str]) -> list[Mistake]:
    """With their lines, in the order of each file."""
    found = [Mistake(place_of(problem.path, known), problem.what, problem.hint) for problem in problems]
    return sorted(dict.fromkeys(found), key=lambda mistake: _line(mistake.where))


def _line(where: str) -> tuple[str, int]:
    file, _, line = where.rpartition(":")
    return (file, int(line)) if line.isdecimal() else (where, 0)


def _layer(path: Path) -> Marked:
    check_name(path)
    tree = read_yaml(_text(path), str(path))
    check_layer(path, tree)
    return tree


def _text(path: Path) -> str:
    if path.is_dir():
        raise folder_error(path)
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise fail(str(path), "there is no such file", "give the path of a spec, such as spec.yaml") from None
    except UnicodeDecodeError:
        raise fail(str(path), "this is no text", "a spec is YAML in UTF-8") from None
    except OSError as error:
        raise fail(
            str(path), f"cannot be read: {error.strerror}", "give the path of a file that you may read"
        ) from None


def _run(path: Path) -> Pipeline:
    """The `pipeline` that a Python spec defines. Its folder is on the path while it runs."""
    _text(path)  # a missing file is told like any other
    folder = str(path.absolute().parent)
    sys.path.insert(0, folder)
    try:
        found = runpy.run_path(str(path)).get("pipeline")
    except SpecError as error:
        where = _line_in(path, error)
        raise SpecFileError([Mistake(where, f"{p.path}: {p.what}", p.hint) for p in error.problems]) from None
    except (Exception, SystemExit) as error:  # what leaves the spec must not pass for the end of the command
        what = f"{type(error).__name__}: {error}"
        raise fail(_line_in(path, error), what, "the spec is run as Python; correct it there") from None
    finally:
        sys.path.remove(folder)
    if not isinstance(found, Pipeline):
        hint = f"end it with `pipeline = Pipeline(...)`; code for a stage is named in a pipeline, as `{path.name}:NAME`"
        raise fail(str(path), "it defines no `pipeline`", hint)
    return found


def _line_in(path: Path, error: BaseException) -> str:
    """The last line of the user's own file that was running."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f"{path}:{error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f"{path}:{lines[-1]}" if lines else str(path)
