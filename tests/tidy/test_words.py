"""Names agree: what the code reports is what the registry lists, and texts point at what is there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from dflow_protocols.concerns import CONCERNS, ELSEWHERE
from dflow_protocols.reports import REPORTS
from tests.tidy.sources import ROOT, all_package_files, own_files, shown, tree

LEVELS = {"error", "warning", "info", "debug"}
MAKERS = {"Report", "_refuse", "_mishap", "audit", "on_stranger"}  # functions whose first argument is a report's name
ADDED = {"count", "repeated"}  # what the log may add to what a peer caused
MEMBERSHIP = ROOT / "protocols" / "dflow_protocols" / "membership"


def calls_of(names: set[str], path: Path) -> Iterator[ast.Call]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", None) or getattr(node.func, "attr", None)
            if name in names:
                yield node


def text_of(node: ast.expr | None) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def made_names() -> dict[str, str]:
    """Names of reports that the code makes -> where."""
    found: dict[str, str] = {}
    for path in all_package_files():
        for call in calls_of(MAKERS, path):
            name = text_of(call.args[0]) if call.args else None
            if name and re.fullmatch(r"[a-z]+\.[a-z_]+", name):
                found[name] = f"{shown(path)}:{call.lineno}"
    return found | membership_names()


def membership_names() -> dict[str, str]:
    """The table puts the room before what happened to a member; that is said by name or found by `_happened`."""
    found: dict[str, str] = {}
    path = MEMBERSHIP / "table.py"
    happened = next(n for n in ast.walk(tree(path)) if isinstance(n, ast.FunctionDef) and n.name == "_happened")
    words = [
        node for statement in ast.walk(happened) if isinstance(statement, ast.Return) for node in _results(statement)
    ]
    words += [call.args[0] for call in calls_of({"_report"}, path)]
    for node in words:
        word = text_of(node)
        if word:
            found[f"membership.{word}"] = f"{shown(path)}:{node.lineno}"
    return found


def _results(statement: ast.Return) -> list[ast.expr]:
    """The texts that a return may give: plain, by a condition, or out of a table."""
    match statement.value:
        case ast.IfExp(body=body, orelse=other):
            return [body, other]
        case ast.Subscript(value=ast.Dict(values=values)):
            return values
        case None:
            return []
        case value:
            return [value]


def test_every_report_that_is_made_is_in_the_registry_and_the_other_way_round() -> None:
    """Log, trace, dashboard and docs share these names; one that nobody makes is a promise not kept."""
    made = made_names()
    assert {name: where for name, where in made.items() if name not in REPORTS} == {}
    assert sorted(set(REPORTS) - set(made)) == []


def test_who_waits_for_a_report_waits_for_one_that_is_made() -> None:
    """A name in a `case` that nothing reports is a reader that never runs."""
    made = made_names()
    awaited = {
        text: f"{shown(path)}:{node.lineno}"
        for path in all_package_files()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.MatchValue)
        and (text := text_of(node.value))
        and text.partition(".")[0] in {name.partition(".")[0] for name in REPORTS}
        and "." in text
    }
    assert {name: where for name, where in awaited.items() if name not in made} == {}


def test_a_report_says_no_field_and_no_level_that_the_registry_does_not() -> None:
    """What is written at the place is compared; what is put together elsewhere is not seen."""
    faults = []
    for path in all_package_files():
        for call in calls_of({"Report"}, path):
            kind = REPORTS.get(text_of(call.args[0]) or "") if call.args else None
            if kind is None:
                continue
            fields = call.args[1] if len(call.args) > 1 else None
            keys = {text_of(key) for key in fields.keys if key is not None} if isinstance(fields, ast.Dict) else set()
            level = text_of(call.args[2]) if len(call.args) > 2 else "info"
            if not keys <= {*kind.fields, *ADDED} or level not in (None, kind.level):
                faults.append(f"{shown(path)}:{call.lineno} {sorted(map(str, keys))} {level}")
    assert faults == []


def test_each_warning_and_error_is_shown_beside_the_log_or_it_is_said_where() -> None:
    """What only the log knows is known to nobody who asks `ps`, `watch` or `doctor`."""
    grave = {name for name, kind in REPORTS.items() if kind.level in ("warning", "error")}
    assert grave == CONCERNS.keys() | ELSEWHERE.keys(), "give each a row in dflow_protocols/concerns.py"
    assert not CONCERNS.keys() & ELSEWHERE.keys()


def test_the_registry_is_well_formed() -> None:
    """A name is `room.happened`, a level one of four, a meaning a phrase."""
    for name, kind in REPORTS.items():
        assert re.fullmatch(r"[a-z]+\.[a-z_]+", name), name
        assert kind.level in LEVELS, name
        assert kind.meaning, name
        assert not kind.meaning.endswith("."), name


def test_no_text_holds_a_promise_for_later_or_a_path_of_one_machine() -> None:
    """What is not done is not in the tree, and what is there works in any folder."""
    later = "|".join(("TO" + "DO", "FIX" + "ME", "X" * 3))
    place = r"(?<![\w.}*])/(?:work|root|home)/\w"
    forbidden = re.compile(rf"\b(?:{later})\b|{place}")
    found = [
        f"{shown(path)}:{number} {line.strip()}"
        for path in own_files()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if forbidden.search(line)
    ]
    assert found == []


def test_every_document_that_a_text_names_is_there() -> None:
    """A reader who follows a pointer must arrive."""
    pointer = re.compile(r"(?<!/etc/)\b(?:docs|protocols|dflowd|examples)/[\w./-]*\w\.(?:md|yaml|json|toml)\b")
    found = [
        f"{shown(path)}:{number} {name}"
        for path in own_files()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        for name in pointer.findall(line)
        if not (ROOT / name).exists()
    ]
    assert found == []


def retired(page: str) -> set[str]:
    """Identifiers that the glossary's last table says are used no more: what its first column has in code."""
    _, _, section = page.partition("\n## Retired\n")
    rows = re.findall(r"^\| (`[^|]+`) \|", section, re.MULTILINE)
    return {word for row in rows for word in re.findall(r"`(\w+)`", row)}


def given_names(module: ast.Module) -> Iterator[tuple[int, str]]:
    """Names that a text gives to something, with the line; a leading underscore is no part of the word."""
    for node in ast.walk(module):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield node.lineno, name.strip("_")
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield node.lineno, name.strip("_")


def test_no_source_uses_a_word_that_the_glossary_retired() -> None:
    """One word, one meaning: who finds the old name in an old text finds the new one beside it, and nothing else."""
    words = retired((ROOT / "docs" / "glossary.md").read_text())
    found: dict[str, list[str]] = {}
    for path in all_package_files():
        given = [*given_names(tree(path)), (1, path.stem), (1, path.parent.name)]
        for line, name in given:
            if name in words:
                found.setdefault(name, []).append(f"{shown(path)}:{line}")
    assert {name: [", ".join(places)] for name, places in found.items()} == {}


def test_the_search_for_retired_words_finds_them() -> None:
    """In each place where a name is given; none where one is only used."""
    page = "| `look` | no row |\n\n## Retired\n\n| once | now |\n|---|---|\n| `hear`, `told` | claimed_by |\n"
    text = "def hear(told): ...\nclass A:\n _told: int\n def f(self):\n  self.told = other.told\nx.hear()"
    assert retired(page) == {"hear", "told"}
    assert sorted(line for line, name in given_names(ast.parse(text)) if name in retired(page)) == [1, 1, 3, 5]
