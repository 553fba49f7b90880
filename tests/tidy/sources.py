"""The project's own files, and what its modules import: read as text, so that nothing is run to be judged."""

from __future__ import annotations

import ast
from collections.abc import Iterator
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
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            origin = _absolute(path, node)
            for alias in node.names:
                inner = f"{origin}.{alias.name}"
                yield (inner if inner in modules() else origin), node.lineno


def _absolute(path: Path, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    here = module_name(path).split(".")
    up = node.level - (path.name == "__init__.py")
    base = here[: len(here) - up]
    return ".".join([*base, node.module] if node.module else base)


def is_within(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)
