"""The protocols decide from their arguments alone: no clock, no chance of their own, no order that a hash seed sets."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

from tests.tidy.sources import imports, is_within, module_name, package_files, shown, tree

IMPURE = (
    "time",
    "datetime",
    "random",
    "secrets",
    "uuid",
    "logging",
    "asyncio",
    "socket",
    "threading",
    "os",
    "subprocess",
)
OF_DISKS = {"os", "io", "pathlib", "shutil", "tempfile", "glob", "fileinput", "mmap", "sqlite3", "dbm"}
ORDER_FREE = {"any", "all", "sum", "min", "max", "len", "set", "frozenset", "sorted", "ranked"}
FROZEN_IN_ORDER = {"list", "tuple"}


def pure_files() -> list[Path]:
    files = package_files("dflow_protocols")
    return [path for path in files if not is_within(module_name(path), "dflow_protocols.simulator")]


def test_no_protocol_reads_a_clock_draws_at_random_or_touches_the_world() -> None:
    """Only so does the simulator run the code that the daemon runs, and a seed replay a fault."""
    found = [
        f"{shown(path)}:{line} imports {module}"
        for path in pure_files()
        for module, line in imports(path)
        if is_within(module, *IMPURE)
    ]
    assert found == []


def disk_use(module: ast.Module) -> Iterator[tuple[int, str]]:
    """What a text would need a disk for, with the line. Names of paths (PurePath) need none."""
    for node in ast.walk(module):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names if alias.name.partition(".")[0] in OF_DISKS)
            case ast.ImportFrom(module=str(origin), level=0, names=names) if origin.partition(".")[0] in OF_DISKS:
                yield from ((node.lineno, alias.name) for alias in names if not alias.name.startswith("Pure"))
            case ast.Call(func=ast.Name(id="open")):
                yield node.lineno, "open"


def test_no_protocol_reads_a_disk() -> None:
    """What lies in a folder is handed in, so that a test, a simulator or another program may hand in anything."""
    found: dict[str, list[str]] = {}
    for path in package_files("dflow_protocols"):
        faults = [f"{line} {name}" for line, name in disk_use(tree(path))]
        found |= {shown(path): faults} if faults else {}
    assert found == {}


def test_the_search_for_disks_finds_one() -> None:
    """Each way that the standard library has to one."""
    text = "import os.path\nfrom pathlib import Path, PurePath\nimport io\nopen('x')\nimport json\nself.open('x')"
    assert [line for line, _ in disk_use(ast.parse(text))] == [1, 2, 3, 4]


def test_no_protocol_walks_a_set_where_order_could_matter() -> None:
    """Text hashes differ from process to process: what is sent, sealed or named must not follow a set's order."""
    found = [f"{shown(path)}:{line}" for path in pure_files() for line in bare_set_loops(tree(path))]
    assert found == []


def bare_set_loops(module: ast.Module) -> Iterator[int]:
    """Lines that walk what is a set by its looks: written as one, made by set(), or bound to such in the function."""
    for scope in ast.walk(module):
        if isinstance(scope, ast.FunctionDef):
            sets = _names_of_sets(scope)
            excused = _order_free(scope)
            for node in ast.walk(scope):
                if isinstance(node, ast.For) and _is_set(node.iter, sets):
                    yield node.lineno
                elif isinstance(node, ast.ListComp | ast.GeneratorExp | ast.DictComp) and node not in excused:
                    yield from (node.lineno for part in node.generators if _is_set(part.iter, sets))
                elif _is_call_of(node, FROZEN_IN_ORDER) and node not in excused:
                    yield from (node.lineno for part in node.args if _is_set(part, sets))


def _is_call_of(node: ast.AST, names: set[str]) -> TypeGuard[ast.Call]:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names


def _order_free(scope: ast.FunctionDef) -> set[ast.AST]:
    """What is handed straight to a function that forgets or makes the order."""
    free = {arg for node in ast.walk(scope) if _is_call_of(node, ORDER_FREE) for arg in node.args}
    return free | {inner for node in free if _is_call_of(node, FROZEN_IN_ORDER) for inner in node.args}


def _names_of_sets(scope: ast.FunctionDef) -> set[str]:
    arguments = [*scope.args.posonlyargs, *scope.args.args, *scope.args.kwonlyargs]
    names = {arg.arg for arg in arguments if _is_set_type(arg.annotation)}
    for node in ast.walk(scope):
        if isinstance(node, ast.Assign) and _is_set(node.value, names):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and _is_set_type(node.annotation):
            names.add(node.target.id)
    return names


def _is_set_type(annotation: ast.expr | None) -> bool:
    return annotation is not None and ast.unparse(annotation).partition("[")[0] in ("set", "frozenset")


def _is_set(value: ast.expr, names: set[str]) -> bool:
    match value:
        case ast.Set() | ast.SetComp():
            return True
        case ast.Name(id=name):
            return name in names
        case ast.Call(func=ast.Name(id="set" | "frozenset")):
            return True
        case ast.BinOp(left=left, op=ast.Sub() | ast.BitOr() | ast.BitAnd()):
            return _is_set(left, names)
    return False


def test_the_search_for_set_loops_finds_one() -> None:
    """A check that can find nothing would pass for ever."""
    lines = ["def f(a):", " b = set(a)", " for x in b:", "  pass", " for y in sorted(b):", "  pass", " return [*b, a]"]
    lines += ["def g(a: frozenset[int]):", " return tuple(a), max(x for x in a), [x for x in a | {1}]"]
    text = "\n".join(lines)
    assert list(bare_set_loops(ast.parse(text))) == [3, 9, 9]
