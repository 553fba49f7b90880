"""The project's own files, and what its modules import: read as text, so that nothing is run to be judged."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "dflowd": ROOT / "dflowd",
    "dflow_cli": ROOT / "cli" / "dflow_cli",
    "dflow_protocols": ROOT / "protocols" / "dflow_protocols",
}
OTHER_FOLDERS = ("tests", "benchmarks", "docs", "examples", "systemd", ".ci")
TEXTS = {".py", ".md", ".toml", ".yaml", ".yml", ".txt", ".service", ""}


def package_files(package: str) -> list[Path]:
    return sorted(PACKAGES[package].rglob("*.py"))


def all_package_files() -> list[Path]:
    return [path for package in PACKAGES for path in package_files(package)]


def own_files() -> list[Path]:
    """Every text that a reader of the repository may open."""
    folders = [*PACKAGES.values(), *(ROOT / folder for folder in OTHER_FOLDERS)]
    found = [path for folder in folders for path in folder.rglob("*")]
    found += [*ROOT.glob("[!.]*"), ROOT / ".gitignore", *(ROOT / "protocols").glob("*.md")]
    kept = {path for path in found if path.is_file() and path.suffix in TEXTS and "__pycache__" not in path.parts}
    return sorted(kept)


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def module_name(path: Path) -> str:
    """`dflowd.shards.store` of its file; a package's `__init__.py` has the package's name. Else its path, dotted."""
    outside = ("", ROOT)
    package, home = next(((name, home) for name, home in PACKAGES.items() if path.is_relative_to(home)), outside)
    parts = [package, *path.relative_to(home).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> dict[str, Path]:
    return {module_name(path): path for path in all_package_files()}


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Modules that a file imports anywhere in it, as absolute names, with the line."""
    return imported(tree(path), module_name(path), path.name == "__init__.py", modules())


def imported(module: ast.Module, name: str, is_package: bool, known: Collection[str]) -> Iterator[tuple[str, int]]:
    """The same of a parsed text that is called `name`: in functions and for types too. `known`: all modules."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            origin = _absolute(node, name, is_package)
            for alias in node.names:
                inner = f"{origin}.{alias.name}"
                yield (inner if inner in known else origin), node.lineno


def _absolute(node: ast.ImportFrom, name: str, is_package: bool) -> str:
    if not node.level:
        return node.module or ""
    here = name.split(".")
    up = node.level - is_package
    base = here[: len(here) - up]
    return ".".join([*base, node.module] if node.module else base)


def folder_of(module: str) -> str:
    """The folder that a module lies in, or that it is; a file at the top of its tree stands for itself."""
    path = modules()[module]
    is_alone = path.name == "__init__.py" or module.count(".") == 1
    return module if is_alone else module.rpartition(".")[0]


@cache
def arrows() -> dict[str, frozenset[str]]:
    """Module -> the project's modules that it imports."""
    return {
        name: frozenset(module for module, _ in imports(path) if module in modules() and module != name)
        for name, path in modules().items()
    }


def is_within(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)
