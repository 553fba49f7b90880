"""Files and functions that fit into a head, and no file that nobody needs."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.tidy.sources import ROOT, all_package_files, imports, module_name, own_files, shown, tree

MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60
MAX_P90_LINES = 40
NOT_A_CONCEPT = {"utils", "util", "common", "helpers", "helper", "misc", "manager", "core", "base", "types"}
ENTRY_POINTS = {"dflowd.__main__", "dflow_cli.app", "dflow_protocols.simulator.__main__"}
WRITTEN_OUT = {
    "dflow_protocols.reports",  # tests hold code and docs to these
    "dflow_protocols.pipeline.grammar.schema",
    "dflow_cli.template.rewards",
}


def python_files() -> list[Path]:
    return [path for path in own_files() if path.suffix == ".py"]


def functions() -> list[tuple[int, str]]:
    return [
        ((node.end_lineno or node.lineno) - node.lineno + 1, f"{shown(path)}:{node.lineno} {node.name}")
        for path in python_files()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def test_no_file_is_longer_than_five_hundred_lines() -> None:
    """Beyond that it holds two concepts."""
    counts = {shown(path): len(path.read_text().splitlines()) for path in python_files()}
    assert {name: count for name, count in counts.items() if count > MAX_FILE_LINES} == {}


def test_no_function_is_longer_than_sixty_lines_and_few_than_forty() -> None:
    """Functions stay small before files do."""
    lengths = sorted(functions())
    assert [found for found in lengths if found[0] > MAX_FUNCTION_LINES] == []
    assert lengths[len(lengths) * 9 // 10][0] <= MAX_P90_LINES


def test_every_file_is_named_for_a_concept() -> None:
    """A file called for nothing in particular collects everything."""
    assert [shown(path) for path in python_files() if path.stem in NOT_A_CONCEPT] == []


def test_every_module_is_used_by_another_or_starts_a_program() -> None:
    """What only its own test uses is dead. A module that is started by name (`python -m`) is named in a text."""
    users = [*all_package_files(), *(ROOT / "docs").rglob("*.py")]
    imported = {module for path in users for module, _ in imports(path) if module != module_name(path)}
    named = {
        word
        for path in all_package_files()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for word in re.findall(r"[a-z_]+(?:\.[a-z_]+)+", node.value)
    }
    live = imported | named | ENTRY_POINTS | WRITTEN_OUT
    dead = [shown(path) for path in all_package_files() if path.name != "__init__.py" and module_name(path) not in live]
    assert dead == []
