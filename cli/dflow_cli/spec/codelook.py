"""What the text of a user's module shows of what it needs and gives, before anything of it is run."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from dflow_protocols.pipeline.files import beside

from .diskfolder import DiskFolder

Function = ast.FunctionDef | ast.AsyncFunctionDef
KINDS: dict[type[ast.expr], str] = {
    ast.List: "a list",
    ast.ListComp: "a list",
    ast.Tuple: "a tuple",
    ast.Set: "a set",
    ast.SetComp: "a set",
    ast.Dict: "a dict",
    ast.DictComp: "a dict",
    ast.GeneratorExp: "a generator",
    ast.JoinedStr: "a text",
    ast.Lambda: "a function",
}
LISTS = ("a list", "a tuple")
RETURNING = ("abs", "bool", "float", "int", "len", "max", "min", "print", "round", "str", "sum")  # calls that come back


def fault_of_answer(function: Function, gives_all: bool) -> tuple[int, str] | None:
    """(line, what is wrong) if no call of a function can give the number that is due; None where some may.

    `gives_all`: a list of numbers is due, one for each completion of a partition.
    """
    due = "a list of numbers" if gives_all else "a number"
    own = list(_own(function))
    if any(isinstance(node, ast.Yield | ast.YieldFrom) for node in own):
        return function.lineno, f"is a generator (it has `yield`), and {due} is due"
    answers = [node for node in own if isinstance(node, ast.Return)]
    if not answers and not any(isinstance(node, ast.Raise) for node in own) and not _may_never_end(function):
        return function.lineno, f"has no `return`, and {due} is due"
    wrong = [(node.lineno, kind) for node in answers if (kind := _kind(node.value)) and not _fits(kind, gives_all)]
    if answers and len(wrong) == len(answers):
        return wrong[0][0], f"gives {wrong[0][1]} where {due} is due"
    return None


def kind_of_value(name: str, tree: ast.Module) -> tuple[int, str] | None:
    """(line, what it is) of a module's name that is bound to no function; None where it may be one."""
    for node in reversed(tree.body):
        if isinstance(node, ast.ClassDef) and node.name == name:
            is_plain = not (node.decorator_list or node.bases or node.keywords)
            return (node.lineno, "a class") if is_plain else None
        if isinstance(node, Function) and node.name == name:
            return None
        targets = node.targets if isinstance(node, ast.Assign) else []
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            kind = _kind(node.value) if isinstance(node, ast.Assign) else ""
            return (node.lineno, kind) if kind and kind != "a function" else None
    return None


def not_here(tree: ast.Module, base: Path) -> Iterator[tuple[int, str]]:
    """(line, what) of each package that a module imports at its top and that is neither in the spec's folder nor
    installed here. One inside `try` or `if` may do without."""
    for node in tree.body:
        match node:
            case ast.Import(names=aliases):
                names = [alias.name for alias in aliases]
            case ast.ImportFrom(module=str(module), level=0):
                names = [module]
            case _:
                continue
        for package in dict.fromkeys(name.partition(".")[0] for name in names):
            is_known = beside(package, DiskFolder(base)) is not None or (base / package).is_dir()
            if not is_known and importlib.util.find_spec(package) is None:
                yield node.lineno, f"it imports `{package}`, which is not installed here"


def _may_never_end(function: Function) -> bool:
    """Whether its last line may be one that no call gets past: only running it would tell what then is wrong."""
    last = function.body[-1]
    if isinstance(last, ast.Expr) and isinstance(last.value, ast.Call):
        return not (isinstance(last.value.func, ast.Name) and last.value.func.id in RETURNING)
    return isinstance(last, ast.While)


def _fits(kind: str, gives_all: bool) -> bool:
    return kind in LISTS if gives_all else kind == "a number"


def _kind(value: ast.expr | None) -> str:
    """What an expression is by its form; empty where that is not known."""
    if value is None:
        return "nothing (None)"
    if isinstance(value, ast.Constant):
        if value.value is None:
            return "nothing (None)"
        if isinstance(value.value, int | float):
            return "a number"
        return "a text" if isinstance(value.value, str) else f"`{ast.unparse(value)[:40]}`"
    return KINDS.get(type(value), "")


def _own(function: Function) -> Iterator[ast.AST]:
    """The nodes of a function without those of functions and classes in it."""
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop(0)
        yield node
        if not isinstance(node, Function | ast.ClassDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)
