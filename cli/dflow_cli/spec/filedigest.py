"""The files that a spec names, looked at before it is submitted: their digests, and what is wrong with them."""

from __future__ import annotations

import ast
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from dflow_protocols.pipeline import Pipeline, Problem
from dflow_protocols.pipeline.entries.parts import FORMATS, parts_of
from dflow_protocols.pipeline.entries.problem import EntryError
from dflow_protocols.pipeline.files import Named, beside, digest, is_environment, named_files
from dflow_protocols.pipeline.grammar.problem import Findings, nearest, suggest
from dflow_protocols.pipeline.grammar.scoring import LENT, MisfitError, asked_of_group, calling, parameters_in

from .codelook import fault_of_answer, kind_of_value, not_here
from .datalook import look_at_data
from .diskfolder import DiskFolder

HUB_NAME = r"\w[\w.-]*(/\w[\w.-]*)?"  # OWNER/NAME, or a name alone
INSTALL = "install it where the daemons run, into the environment of `dflowd`"


def digest_files(pipeline: Pipeline, base: Path) -> tuple[dict[str, str], Findings]:
    """Digest by the path of the key that names the file, such as `models.policy.init.config`; and what was found.

    Relative paths start from `base`.
    """
    digests: dict[str, str] = {}
    found = Findings()
    for named in named_files(pipeline):
        if named.kind == "function":
            found.problems += _function(named, pipeline, base, found.warnings)
        elif not _is_there(named, base):
            found.problems.append(_missing(named, base))
            continue
        elif named.kind in FORMATS:
            found.include(look_at_data(named, pipeline, base))
        known = digest(named, DiskFolder(base))
        if known is not None:
            digests[named.path] = known
    return digests, found


def _is_there(named: Named, base: Path) -> bool:
    if named.kind not in FORMATS:
        return (base / named.name).is_dir() if named.kind == "folder" else (base / named.name).is_file()
    try:
        return bool(parts_of(named.kind, named.name, DiskFolder(base)))
    except EntryError:  # told with what is in it
        return True


def _missing(named: Named, base: Path) -> Problem:
    path, name, found = named.path, named.name, base / named.name
    kind = "file" if named.kind in FORMATS else named.kind
    if named.kind in FORMATS and found.is_dir():
        return Problem(path, f"no file in `{name}` ends in `.{named.kind}`", "name the files, or another folder")
    what = f"there is no {kind} `{name}`"
    folder = found.parent
    near = nearest(found.name, [item.name for item in folder.iterdir()] if folder.is_dir() else [])
    if near is not None and near != found.name:
        return Problem(path, what, f"did you mean `{near}`?")
    if near is not None:
        return Problem(path, what, f"`{name}` is there, but is no {kind}")
    start = f"paths start from the spec's folder, {base}"
    if re.fullmatch(r"models\.[^.]+\.path", path) and re.fullmatch(HUB_NAME, name):
        target = shlex.quote(str(found))
        return Problem(
            path, what, f"{start}; a model of a hub is fetched first: `hf download {name} --local-dir {target}`"
        )
    return Problem(path, what, start)


def _function(named: Named, pipeline: Pipeline, base: Path, warnings: list[Problem]) -> Iterator[Problem]:
    """What is wrong with a function, and what is doubtful, as far as its text shows it: nothing of it is run."""
    module, _, name = named.name.partition(":")
    file = find_module(module, base)
    if file is None:
        files = [item.name for item in base.glob("*.py")] if module.endswith(".py") else []
        near = nearest(module, files)
        hint = f"did you mean `{near}:{name}`?" if near else f"put it into the spec's folder, {base}, or install it"
        yield Problem(named.path, f"there is no module `{module}`", hint)
        return
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError) as error:
        line = f":{error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        what = error.msg if isinstance(error, SyntaxError) else str(error)
        yield Problem(named.path, f"`{file.name}{line}` is not Python: {what}", "correct it first")
        return
    if file.is_relative_to(base):
        warnings += [Problem(named.path, f"{file.name}:{line}: {what}", INSTALL) for line, what in not_here(tree, base)]
    defined = _defined(tree)
    if name not in defined and "*" not in defined:
        yield Problem(named.path, f"`{module}` has no `{name}`", suggest(name, defined, "functions"))
    if is_environment(named):
        yield from _environment(named, tree, pipeline, file.name)
        return
    if no_function := kind_of_value(name, tree):
        at, kind = no_function
        yield Problem(named.path, f"{file.name}:{at}: `{name}` is {kind}, no function", "write it as a plain `def`")
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name and not node.decorator_list:
            where = f"{file.name}:{node.lineno}"
            misfits = [*_misfits(named, node, where, pipeline), *_losses(named, node, where, pipeline)]
            yield from misfits
            warnings += [] if misfits else _indifferent(named, node, where, pipeline)


def _indifferent(
    named: Named, function: ast.FunctionDef | ast.AsyncFunctionDef, where: str, pipeline: Pipeline
) -> Iterator[Problem]:
    """A reward that cannot tell the completions of a group apart: each group is flat, and teaches nothing."""
    body = [node for node in function.body if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))]
    is_constant = len(body) == 1 and isinstance(body[0], ast.Return) and isinstance(body[0].value, ast.Constant)
    for index, stage in enumerate(pipeline.stages):
        operator = stage.operator
        if not operator.scores or operator.evaluates or stage.config["function"] != named.name:
            continue
        asked = calling(parameters_in(function), {*stage.config["args"], *LENT.get(named.name, ())}).names
        if is_constant or not {"completion", "completions"} & set(asked):
            says = "gives one number whatever was said" if is_constant else "does not ask for `completion`"
            what = f"{where}: `{function.name}` {says}: completions of one prompt get one reward, and teach nothing"
            yield Problem(f"stages[{index}].config.function", what, "judge what the model said")


def _misfits(
    named: Named, function: ast.FunctionDef | ast.AsyncFunctionDef, where: str, pipeline: Pipeline
) -> Iterator[Problem]:
    """Whether each stage that scores, sifts or compares by the function can call it."""
    for index, stage in enumerate(pipeline.stages):
        sifts, compares = stage.operator.sifts, bool(stage.operator.methods)
        key = "method" if compares else "function"
        if not (stage.operator.scores or sifts or compares) or stage.config[key] != named.name:
            continue
        path = f"stages[{index}].config.{key}"
        given, gives_all = {*stage.config["args"], *LENT.get(named.name, ())}, compares
        try:
            if sifts or compares:
                asked_of_group(parameters_in(function), given)
            else:
                gives_all = calling(parameters_in(function), given).all
        except MisfitError as error:
            such = "def keep(rewards)" if sifts else "def reward(completion, answer)"
            such = "def advantage(rewards)" if compares else such
            yield Problem(
                path, f"{where}: `{function.name}` {error}", f"such as `{such}`; it gets by name what it asks for"
            )
            continue
        if fault := fault_of_answer(function, gives_all):
            line, what = fault
            hint = "`return` one for each completion, in their order" if gives_all else "`return` one, such as 0.5"
            hint = "`return` True or False" if sifts else hint
            yield Problem(path, f"{where.partition(':')[0]}:{line}: `{function.name}` {what}", hint)


def _losses(
    named: Named, function: ast.FunctionDef | ast.AsyncFunctionDef, where: str, pipeline: Pipeline
) -> Iterator[Problem]:
    """Whether each training can call the loss: with the tokens, and with its `args` by name."""
    taken = parameters_in(function)[1:]
    names = [each.name for each in taken]
    for index, stage in enumerate(pipeline.stages):
        loss = stage.config.get("loss", {}) if stage.operator.trains is not None else {}
        if loss.get("kind") != named.name:
            continue
        path = f"stages[{index}].config.loss.args"
        surplus = [key for key in loss["args"] if key not in names and function.args.kwarg is None]
        lacking = [each.name for each in taken if each.required and each.name not in loss["args"]]
        if surplus:
            what = f"{where}: `{function.name}` does not take `{surplus[0]}`, which `args` hold"
            yield Problem(path, what, suggest(surplus[0], names, "arguments"))
        elif lacking:
            what = f"{where}: `{function.name}` asks for `{lacking[0]}`, which `args` lack"
            yield Problem(path, what, "say it there, or give it a default in the function")


def _environment(named: Named, tree: ast.Module, pipeline: Pipeline, file: str) -> Iterator[Problem]:
    """Whether the class can answer a model, as far as its own text shows it: one that inherits may have the rest."""
    name = named.name.partition(":")[2]
    own = next((node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name), None)
    if own is None:
        if kind_of_value(name, tree) is not None or any(
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name for node in tree.body
        ):
            yield Problem(named.path, f"{file}: `{name}` is no class", "write a class with `reset` and `step`")
        return
    if own.bases or own.keywords or own.decorator_list:
        return
    methods = {node.name: node for node in own.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    for method, asks in (("reset", "entry"), ("step", "messages")):
        if method not in methods:
            what, hint = f"{file}:{own.lineno}: `{name}` has no `{method}`", f"write `def {method}(self, {asks})`"
            yield Problem(named.path, what, hint)
    taken = [each.name for each in parameters_in(methods["__init__"])[1:]] if "__init__" in methods else []
    takes_any = "__init__" in methods and methods["__init__"].args.kwarg is not None
    for index, stage in enumerate(pipeline.stages):
        config = stage.config.get("environment") if stage.operator.samples else None
        surplus = (
            [key for key in config["args"] if key not in taken] if config and config["class"] == named.name else []
        )
        if surplus and not takes_any:
            what = f"{file}:{own.lineno}: `{name}` does not take `{surplus[0]}`, which `args` hold"
            yield Problem(f"stages[{index}].config.environment.args", what, suggest(surplus[0], taken, "arguments"))


def find_module(module: str, base: Path) -> Path | None:
    """The file of `file.py` or `package.module`: in `base` first, then where Python looks. Nothing is imported."""
    roots = [base] if module.endswith(".py") else [base, *map(Path, sys.path)]
    return next((root / name for root in roots if (name := beside(module, DiskFolder(root))) is not None), None)


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
