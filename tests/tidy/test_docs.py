"""What the pages name is there: links, files, functions, cases, reports, commands. Read as text; nothing is run."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import typer

from dflow_cli.app import app
from dflow_protocols.reports import REPORTS
from tests.tidy.sources import PACKAGES, ROOT, all_package_files, tree

README_LINES = 90
PAGES = sorted(
    [
        ROOT / "README.md",
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "protocols").glob("*.md"),
        *(ROOT / "dflowd").rglob("*.md"),
    ]
)
PLACEHOLDERS = {"dflowd.toml", "file.py", "vectors/TYPE.json"}  # the reader's own, or any one of many
OF_USERS = {ROOT / "docs" / "pipelines.md", ROOT / "docs" / "troubleshooting.md"}  # of files that their reader has
FOLDERS = (ROOT, PACKAGES["dflow_protocols"])  # a file named without its folder lies in one of these
CASES = ROOT / "tests" / "sim" / "test_cases.py"
LINK = re.compile(r"\]\(([^)\s]+)\)")
NAMED = re.compile(r"([\w./-]*\w\.(?:py|yaml|json|toml|md))(?::([A-Za-z_][\w.]*))?")
OF_THE_PROGRAM = {"--help", "--install-completion", "--show-completion"}
PROGRAMS = {"make", "dflow", "dflowd", "pytest", "python"}

each_page = pytest.mark.parametrize("page", PAGES, ids=[path.relative_to(ROOT).as_posix() for path in PAGES])


@cache
def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def spans(page: Path) -> list[str]:
    return re.findall(r"`([^`\n]+)`", prose(page))


def blocks(page: Path) -> Iterator[str]:
    """Lines of fenced blocks without a language."""
    for block in re.findall(r"^ *```\n(.*?)^ *```", page.read_text(), flags=re.DOTALL | re.MULTILINE):
        yield from block.splitlines()


def anchors(page: Path) -> set[str]:
    """The names under which a page's headings can be linked to."""
    headings = re.findall(r"^#+ (.+)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_page
def test_every_link_leads_somewhere(page: Path) -> None:
    """A reader who follows a link finds the file, and the heading in it."""
    broken = []
    for link in LINK.findall(prose(page)):
        if link.startswith(("http://", "https://")):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", [page for page in PAGES if page not in OF_USERS], ids=lambda page: page.stem)
def test_every_file_and_function_that_a_page_names_is_there(page: Path) -> None:
    """Pages that walk through the code are worth nothing once the code has moved on without them."""
    missing = []
    for span in spans(page):
        named = NAMED.fullmatch(span)
        if named is None or named[1] in PLACEHOLDERS:
            continue
        file = find(page, named[1])
        if file is None or (named[2] and named[2] not in names_in(file)):
            missing.append(span)
    assert missing == []


def find(page: Path, name: str) -> Path | None:
    """The file in one of the folders, or the only module that is called so."""
    here = next((folder / name for folder in (*FOLDERS, page.parent) if (folder / name).is_file()), None)
    called_so = [path for path in all_package_files() if path.name == name]
    return here or (called_so[0] if len(called_so) == 1 else None)


@cache
def names_in(file: Path) -> set[str]:
    """What a module defines at its top, and `Class.method`."""
    found: set[str] = set()
    for node in tree(file).body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
            inner = node.body if isinstance(node, ast.ClassDef) else []
            found |= {f"{node.name}.{part.name}" for part in inner if isinstance(part, ast.FunctionDef)}
    return found


@each_page
def test_every_table_has_a_head(page: Path) -> None:
    """A row behind an empty line is shown as text with bars in it."""
    lines = ["", *prose(page).splitlines(), ""]
    heads = [
        line
        for before, line, after in zip(lines, lines[1:], lines[2:], strict=False)
        if line.startswith("|") and not before.startswith("|") and not re.fullmatch(r"\|[ :|-]+\|", after)
    ]
    assert heads == []


@each_page
def test_every_report_that_a_page_names_is_one(page: Path) -> None:
    """A reader greps for it."""
    rooms = {name.partition(".")[0] for name in REPORTS}
    named = [span for span in spans(page) if re.fullmatch(r"[a-z]+\.[a-z_]+", span)]
    files = {span for span in named if NAMED.fullmatch(span)}
    told = [span for span in named if span.partition(".")[0] in rooms and span not in files]
    assert [span for span in told if span not in REPORTS and not is_config_key(span)] == []


def is_config_key(span: str) -> bool:
    """`mesh.seeds` is a key of the configuration, `checkpoint.every` of a pipeline: their sections share names with
    rooms."""
    section, _, key = span.partition(".")
    text = (ROOT / "docs" / "reference" / "config.md").read_text()
    of_pipelines = f"| `{span}` |" in (ROOT / "docs" / "pipelines.md").read_text()
    return of_pipelines or (f"## [{section}]" in text and f"| `{key}` |" in text)


@pytest.mark.parametrize("page", ["protocol.md", "simulator.md"])
def test_every_case_that_a_page_names_is_one(page: str) -> None:
    """Cases of the simulator are named in prose, by the words that stand in the table."""
    known = {
        node.value for node in ast.walk(tree(CASES)) if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    named = [span for span in spans(ROOT / "docs" / page) if re.fullmatch(r"(a|an|the)_[a-z0-9_]+", span)]
    assert named
    assert [name for name in named if name not in known] == []


def test_the_table_of_delays_has_the_values_that_the_code_has() -> None:
    """It is the one place where they are told; a figure that has moved on misleads whoever reasons with it."""
    page = ROOT / "docs" / "protocol.md"
    rows = re.findall(r"^\| `([\w/]+\.py):([A-Z][A-Z_]+)`[^|]*\| ([\d.,]+)", page.read_text(), re.MULTILINE)
    told = {f"{file}:{name}": float(value.replace(",", "")) for file, name, value in rows}
    assert told
    assert {name: value_of(page, name) for name in told} == told


def test_every_delay_in_suspicion_times_is_in_the_table() -> None:
    """A new one that the page does not tell is found by its unit, which stands behind each."""
    protocols = PACKAGES["dflow_protocols"]
    counted = re.compile(r"^([A-Z][A-Z_]+) = [\d.]+ +# .*\bsuspicion times\b", re.MULTILINE)
    there = {
        f"`{path.relative_to(protocols).as_posix()}:{name}`"
        for path in all_package_files()
        if path.is_relative_to(protocols) and "simulator" not in path.parts
        for name in counted.findall(path.read_text())
    }
    assert there
    assert there - {f"`{span}`" for span in spans(ROOT / "docs" / "protocol.md")} == set()


def value_of(page: Path, name: str) -> float:
    """A number, or a product of some, that a module gives a name at its top."""
    file, _, constant = name.partition(":")
    found = find(page, file)
    assert found is not None, name
    for node in tree(found).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == constant for target in targets):
            factors = [each.value for each in ast.walk(node) if isinstance(each, ast.Constant)]
            return math.prod(float(factor) for factor in factors if isinstance(factor, int | float))
    raise AssertionError(f"{name} is no constant")


def commands(page: Path) -> Iterator[list[str]]:
    """Command lines that a page shows; what follows two spaces is what is said of them."""
    for line in (*spans(page), *blocks(page)):
        words = re.split(r"\s{2,}", line.strip().removeprefix("$ "))[0].split()
        if len(words) > 1 and words[0] in PROGRAMS:
            yield words


@each_page
def test_every_command_that_a_page_shows_exists(page: Path) -> None:
    """Typed as it stands, it is understood: the command is there and knows its options."""
    assert [" ".join(words) for words in commands(page) if not is_known(words)] == []


def is_known(words: list[str]) -> bool:
    program, command = words[:2]
    options = {word for word in words[2:] if word.startswith("--")}
    if program == "make":
        return re.search(rf"^{re.escape(command)}:", (ROOT / "Makefile").read_text(), re.MULTILINE) is not None
    if program == "dflow":
        known = options_of_dflow()
        return command in OF_THE_PROGRAM or (command in known and options <= known[command])
    if program == "dflowd":
        return command in ("run", "check-config") and options <= {"--config", "--json"}
    if program == "pytest":
        return (ROOT / command).exists()
    return command != "-m" or importable(words[2])


def importable(module: str) -> bool:
    package, _, rest = module.partition(".")
    place = PACKAGES.get(package, ROOT / package) / rest.replace(".", "/")
    return place.with_suffix(".py").exists() or (place / "__main__.py").exists()


@cache
def options_of_dflow() -> dict[str, set[str]]:
    group = typer.main.get_command(app)
    found: dict[str, set[str]] = {}
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        parts = [command, *getattr(command, "commands", {}).values()]  # `keys` has commands of its own
        found[name] = {option for part in parts for parameter in part.params for option in parameter.opts}
    return found


def test_the_readme_is_short_and_has_its_two_commands() -> None:
    """Whoever opens the repository reads one page, and types one of two lines."""
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= README_LINES
    assert "make demo" in text
    assert "make test" in text
