"""Files and functions that fit into a head, and no file that nobody needs."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.tidy.sources import PACKAGES, ROOT, all_package_files, imports, module_name, own_files, shown, tree

MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60
MAX_P90_LINES = 40
MAX_FILES = 13
LISTS = {PACKAGES["dflow_cli"] / "commands"}  # a file a command: read by name, not as a whole
NOT_A_CONCEPT = {"utils", "util", "common", "helpers", "helper", "misc", "manager", "core", "base", "types"}
ENTRY_POINTS = {"dflowd.__main__", "dflow_cli.app"}
WRITTEN_OUT = {
    "dflow_protocols.reports",  # tests hold code and docs to these
    "dflow_cli.template.rewards",
    "dflowd.rewards.checks",  # specs name its functions
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


def full(folders: dict[Path, list[str]]) -> dict[str, list[str]]:
    """Folders with too many files -> the files beyond."""
    return {
        shown(folder): sorted(names)[MAX_FILES:]
        for folder, names in folders.items()
        if len(names) > MAX_FILES and folder not in LISTS
    }


def test_no_folder_holds_more_files_than_can_be_taken_in() -> None:
    """A listing is the first page that a reader sees of a room."""
    folders: dict[Path, list[str]] = {}
    for path in all_package_files():
        if path.name != "__init__.py":
            folders.setdefault(path.parent, []).append(path.name)
    assert full(folders) == {}


def test_the_count_of_files_finds_a_full_folder() -> None:
    """Thirteen are in order, two more are two too many."""
    names = [f"{letter}.py" for letter in "abcdefghijklmno"]
    assert full({ROOT / "some": names[:MAX_FILES], ROOT / "other": names}) == {"other": ["n.py", "o.py"]}


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
