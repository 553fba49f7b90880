"""No file and no folder needs, by way of others, itself: each can be read after those that it imports."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Set

from tests.tidy.sources import arrows, folder_of, imported

Graph = Mapping[str, Set[str]]


def circles(graph: Graph) -> list[list[str]]:
    """Groups of two or more that reach each other, each sorted."""
    reached = {name: reach(graph, name) for name in graph}
    mutual = {name: {other for other in there if name in reached.get(other, ())} for name, there in reached.items()}
    groups = {tuple(sorted(others)) for others in mutual.values()}
    return sorted(list(group) for group in groups if len(group) > 1)


def reach(graph: Graph, start: str) -> set[str]:
    """All that can be come to from `start` by one arrow or more."""
    found: set[str] = set()
    open_names = list(graph.get(start, ()))
    while open_names:
        name = open_names.pop()
        if name not in found:
            found.add(name)
            open_names += graph.get(name, ())
    return found


def among_folders(graph: Graph) -> Graph:
    found: dict[str, set[str]] = {}
    for name, others in graph.items():
        here = folder_of(name)
        found.setdefault(here, set()).update({folder_of(other) for other in others} - {here})
    return found


def faults(graph: Graph) -> dict[str, list[str]]:
    """Who is in a circle -> which of the others it imports."""
    return {
        name: [" ".join(["imports", *sorted(graph[name] & {*circle})])] for circle in circles(graph) for name in circle
    }


def test_no_file_imports_itself_by_way_of_others() -> None:
    """Two files in a circle are one file in two halves; an import for types only or within a function is an import."""
    assert faults(arrows()) == {}


def test_no_folder_imports_itself_by_way_of_others() -> None:
    """A folder that can be taken away with what lies below it can be understood, and tested, so too."""
    assert faults(among_folders(arrows())) == {}


def test_the_search_for_circles_finds_one() -> None:
    """Hidden behind TYPE_CHECKING, in a function, or in a relative import, it is one."""
    texts = {
        "p.a": "if TYPE_CHECKING:\n from p.b import B",
        "p.b": "def f():\n from .c import C",
        "p.c": "from . import a",
        "p.d": "import p.a",
    }
    graph = {
        name: {module for module, _ in imported(ast.parse(text), name, is_package=False, known=texts)}
        for name, text in texts.items()
    }
    assert circles(graph) == [["p.a", "p.b", "p.c"]]
    assert faults(graph) == {"p.a": ["imports p.b"], "p.b": ["imports p.c"], "p.c": ["imports p.a"]}
