"""Stages differ by what their operators say of themselves, never by what these are called."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from dflow_protocols.pipeline.grammar.signatures import OPERATORS
from tests.tidy.sources import all_package_files, shown, tree


def asked_by_name(module: ast.Module) -> Iterator[int]:
    """Lines that compare a stage's `op` with an operator's name, or look it up in a table that lists such names."""
    parts: list[ast.AST]
    for node in ast.walk(module):
        match node:
            case ast.Compare(left=left, comparators=others):
                parts = [left, *others]
            case ast.Match(subject=subject, cases=cases):
                parts = [subject, *(case.pattern for case in cases)]
            case ast.Subscript(value=ast.Dict() as table, slice=key):
                parts = [key, table]
            case _:
                continue
        if any(map(_is_op, parts)) and any(_is_name(inner) for part in parts for inner in ast.walk(part)):
            yield node.lineno


def _is_op(node: ast.AST) -> bool:
    match node:
        case ast.Attribute(attr="op") | ast.Name(id="op") | ast.Subscript(slice=ast.Constant(value="op")):
            return True
    return False


def _is_name(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in OPERATORS


def test_nobody_tells_stages_apart_by_the_names_of_their_operators() -> None:
    """A new operator is a row of signatures and a function; a ladder of names elsewhere would pass it over."""
    found = [f"{shown(path)}:{line}" for path in all_package_files() for line in asked_by_name(tree(path))]
    assert found == []


def test_the_search_for_names_finds_them() -> None:
    """A check that can find nothing would pass for ever."""
    lines = ["if stage.op == 'sft': pass", "x = stage['op'] in ('train', 'sft')", "y = {'sft': 1}[stage.op]"]
    lines += ["match self.stage.op:", "    case 'reward': pass", "z = 'reward' in operator_of(stage.op).writes"]
    assert sorted(asked_by_name(ast.parse("\n".join(lines)))) == [1, 2, 3, 4]
