"""Who owns a field writes it: others ask by a verb, which can say what it means and keep what must hold."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from tests.tidy.sources import all_package_files, shown, tree

OWN = {"self", "cls"}
OF_LIBRARIES = {
    "allow_tf32",  # torch.backends
    "benchmark",
    "grad",  # torch.nn.Parameter
    "do_sample",  # transformers.GenerationConfig
    "argtypes",  # ctypes
    "restype",
    "filters",  # jinja2.Environment
}
SOCKETS = {"socket", "_socket"}  # ZeroMQ's: options are set by assignment
Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


@dataclass(frozen=True)
class Records:
    """What a file owns: classes that it defines, and fields of these that hold such classes."""

    classes: frozenset[str]
    fields: frozenset[str]


def records(module: ast.Module) -> Records:
    found = [node for node in ast.walk(module) if isinstance(node, ast.ClassDef)]
    classes = frozenset(node.name for node in found)
    fields = [part for node in found for part in node.body if isinstance(part, ast.AnnAssign)]
    own = {ast.unparse(part.target) for part in fields if _type_name(part.annotation) in classes}
    return Records(classes, frozenset(own))


def foreign_writes(module: ast.Module) -> Iterator[tuple[int, str]]:
    """Assignments to `x.y.z`, to an attribute of a parameter, and to one of a local name for either; with the line.

    An element of such an attribute (`x.y.z[k] = ...`) counts. What holds a class of the same file does not: a record
    and the functions beside it are one owner.
    """
    yield from _writes_within(module, frozenset(), records(module))


def _writes_within(node: ast.AST, others: frozenset[str], own: Records) -> Iterator[tuple[int, str]]:
    """`others`: names that stand for what somebody else owns."""
    if isinstance(node, Function):
        others = _lent(node, others, own)
    for target in _targets(node):
        inner = target
        while isinstance(inner, ast.Subscript):
            inner = inner.value
        if isinstance(inner, ast.Attribute) and inner.attr not in OF_LIBRARIES:
            owner = inner.value
            is_deep = isinstance(owner, ast.Attribute) and owner.attr not in SOCKETS | own.fields
            if is_deep or (isinstance(owner, ast.Name) and owner.id in others - SOCKETS):
                yield target.lineno, ast.unparse(target)
    for child in ast.iter_child_nodes(node):
        yield from _writes_within(child, others, own)


def _lent(function: Function, others: frozenset[str], own: Records) -> frozenset[str]:
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    mine = OWN | {arg.arg for arg in arguments if _type_name(arg.annotation) in own.classes}
    found = others - mine | {arg.arg for arg in arguments} - mine
    body = [] if isinstance(function, ast.Lambda) else function.body
    for node in (inner for statement in body for inner in ast.walk(statement)):
        if isinstance(node, ast.Assign):
            pairs = [pair for target in node.targets for pair in _pairs(target, node.value)]
            found |= {
                name.id for name, value in pairs if isinstance(value, ast.Attribute) and value.attr not in own.fields
            }
    return found


def _type_name(annotation: ast.expr | None) -> str:
    """`Slot` of `Slot`, `"Slot"` and `Slot | None`."""
    if isinstance(annotation, ast.BinOp):
        annotation = annotation.left
    if isinstance(annotation, ast.Constant):
        return str(annotation.value)
    return annotation.id if isinstance(annotation, ast.Name) else ""


def _pairs(target: ast.expr, value: ast.expr) -> Iterator[tuple[ast.Name, ast.expr]]:
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
        for part, given in zip(target.elts, value.elts, strict=True):
            yield from _pairs(part, given)
    elif isinstance(target, ast.Name):
        yield target, value


def _targets(node: ast.AST) -> Iterator[ast.expr]:
    """What a statement gives a value to, or takes away."""
    match node:
        case ast.Assign(targets=targets) | ast.Delete(targets=targets):
            open_targets = list(targets)
        case ast.AugAssign(target=target) | ast.AnnAssign(target=target) | ast.For(target=target):
            open_targets = [target]
        case ast.With(items=items) | ast.AsyncWith(items=items):
            open_targets = [item.optional_vars for item in items if item.optional_vars is not None]
        case _:
            open_targets = []
    while open_targets:
        target = open_targets.pop(0)
        if isinstance(target, ast.Tuple | ast.List):
            open_targets += target.elts
        elif isinstance(target, ast.Starred):
            open_targets.append(target.value)
        else:
            yield target


def test_nobody_writes_into_another_objects_field() -> None:
    """A field that several write is state without an owner: its rules stand nowhere."""
    found: dict[str, list[str]] = {}
    for path in all_package_files():
        for line, target in foreign_writes(tree(path)):
            found.setdefault(shown(path), []).append(f"{line} {target}")
    assert found == {}


def test_the_search_for_foreign_writes_finds_them() -> None:
    """By whatever statement, and by whatever name."""
    text = """
class Slot: ...
class Row:
    slot: Slot | None
def f(self, run, slot: Slot, other: Run):
    self.calls = 1
    self.run.calls = 1
    run.state, (self.a, other.b) = 1, (2, 3)
    slot.used += 1
    self.run.calls[3] = 1
    del run.calls[3]
    known = self.run
    known.status = 1
    mine = Slot()
    mine.used = 1
    for other.at in (): ...
    with g() as other.at: ...
    self.socket.linger = 0
    def inner(): run.x = 1
    row = Row()
    row.slot.used = 2
    return lambda step: step.x
"""
    lines = sorted(line for line, _ in foreign_writes(ast.parse(text)))
    assert lines == [7, 8, 8, 10, 11, 13, 16, 17, 19]
