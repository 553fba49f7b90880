"""Runs a Python file that builds siiRL pipelines, in a process of its own, and prints the pipelines as JSON.

`python -P -m dflow_cli.importing.siirl.standin FILE [FUNCTION]`. Neither siiRL nor what it needs has to be installed: a
stand-in takes the place of every module `siirl...`, and of others that FILE imports and that are not here. It knows the
builder's classes; all else of it is a name that can be called, subclassed and written as a type, and does nothing.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from .builtin import BUILTIN
from .workflow import ROLES, TYPES

# mypy wants an enum's members as they are written; these are those of the tables by which workflows are read.
NodeType = Enum("NodeType", {name: name for name in TYPES})  # type: ignore[misc]
NodeRole = Enum("NodeRole", {name: name for name in ROLES})  # type: ignore[misc]


class NodeConfig:
    """What a node of the builder may be given beside its function."""

    def __init__(self, agent_group: int = 0, config: dict[str, Any] | None = None) -> None:
        self.agent_group = agent_group
        self.config = config or {}


class TaskGraph:
    """What a builder function returns: its nodes, as they were added."""

    def __init__(self, graph_id: str, nodes: Sequence[dict[str, Any]] = ()) -> None:
        self.graph_id = graph_id
        self.nodes = list(nodes)

    def add_node(self, node: dict[str, Any]) -> None:
        self.nodes.append(node)

    def add_nodes(self, nodes: Sequence[dict[str, Any]]) -> None:
        self.nodes.extend(nodes)

    def build_adjacency_lists(self) -> None:
        """Nothing: nodes name what they wait for."""

    def validate_graph(self) -> tuple[bool, None]:
        return True, None


class Pipeline:
    """The builder that users call."""

    def __init__(self, pipeline_id: str, description: str = "") -> None:
        self._graph = TaskGraph(pipeline_id)

    def add_node(
        self, node_id: str, func: Any, deps: Any = None, config: NodeConfig | None = None, **others: Any
    ) -> Pipeline:
        given = config or NodeConfig()
        self._graph.add_node(
            make_node(
                node_id, dependencies=deps, agent_group=given.agent_group, config=given.config, func=func, **others
            )
        )
        return self

    def build(self) -> TaskGraph:
        return self._graph

    def visualize(self, *_: Any, **__: Any) -> TaskGraph:
        return self._graph


def make_node(node_id: str, node_type: Any = "COMPUTE", node_role: Any = "DEFAULT", **others: Any) -> dict[str, Any]:
    """A node as plain values; arguments as those of siiRL's `Node`."""
    return {
        "id": node_id,
        "func": called(others.get("func") or others.get("executable_ref") or others.get("filter_plugin") or ""),
        "needs": list(others.get("dependencies") or ()),
        "type": getattr(node_type, "name", node_type),
        "role": getattr(node_role, "name", node_role),
        "forward_only": bool(others.get("only_forward_compute")),
        "agent": others.get("agent_group") or 0,
        "config": dict(others.get("config") or {}),
        "options": dict(others.get("agent_options") or {}),
    }


def called(func: Any) -> str:
    """A function by name, as siiRL writes it."""
    return func if isinstance(func, str) else f"{func.__module__}:{func.__qualname__}"


def builtin(name: str) -> Callable[[], TaskGraph]:
    """siiRL's own builder function of this name."""
    graph, nodes = BUILTIN[name]
    return lambda: TaskGraph(graph, [{**node} for node in nodes])


KNOWN: dict[str, Any] = {
    "Node": make_node,
    "NodeConfig": NodeConfig,
    "NodeRole": NodeRole,
    "NodeType": NodeType,
    "Pipeline": Pipeline,
    "TaskGraph": TaskGraph,
    **{name: builtin(name) for name in BUILTIN},
}


class Absent:
    """A name of a module that is not here, or of what such a name has."""

    def __init__(self, module: str, name: str) -> None:
        self.__module__ = module
        self.__qualname__ = name
        self.__name__ = name.rpartition(".")[2]

    def __getattr__(self, name: str) -> Absent:
        if name.startswith("__"):
            raise AttributeError(name)
        return Absent(self.__module__, f"{self.__qualname__}.{name}")

    def __call__(self, *args: Any, **named: Any) -> Any:
        """As a decorator it gives back what it decorates."""
        return args[0] if len(args) == 1 and not named and isinstance(args[0], FunctionType | type) else self

    def __getitem__(self, _: Any) -> Absent:
        return self

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __or__(self, _: Any) -> Absent:
        return self

    __ror__ = __or__

    def __mro_entries__(self, _: Any) -> tuple[type, ...]:
        return ()


class AbsentModule(ModuleType):
    """Has every name."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__ = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return KNOWN[name] if name in KNOWN and is_of_siirl(self.__name__) else Absent(self.__name__, name)


class StandIn(MetaPathFinder, Loader):
    """Finds modules for which `stands_in` says so."""

    def __init__(self, stands_in: Callable[[str], bool]) -> None:
        self._stands_in = stands_in

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return ModuleSpec(fullname, self, is_package=True) if self._stands_in(fullname) else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return AbsentModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing: it has all names as it is."""


def is_of_siirl(module: str) -> bool:
    return module.partition(".")[0] == "siirl"


def packages(tree: ast.Module) -> set[str]:
    """Those that a module imports anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def builders(module: ModuleType) -> list[str]:
    """Functions of a module that build pipelines: said to return a TaskGraph, or using the builder, with no argument
    that has to be given."""
    found = []
    for name, function in vars(module).items():
        if not isinstance(function, FunctionType) or function.__module__ != module.__name__:
            continue
        returns = str(function.__annotations__.get("return", ""))
        is_builder = "TaskGraph" in returns or "Pipeline" in function.__code__.co_names
        parameters = inspect.signature(function).parameters.values()
        is_free = all(
            each.default is not each.empty or each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
            for each in parameters
        )
        if is_builder and is_free:
            found.append(name)
    return found


def build(path: Path, function: str) -> dict[str, Any]:
    """The pipelines that a file builds, or the mistake that kept it from that."""
    try:
        module = _load(path)
        names = [function] if function else builders(module)
        missing = [name for name in names if not callable(vars(module).get(name))]
        if missing:
            return {"mistake": f"it has no function `{missing[0]}`", "line": 0, "functions": builders(module)}
        return {"pipelines": [{"function": name, **_plain(vars(module)[name]())} for name in names]}
    except (Exception, SystemExit) as error:  # what leaves the file must not pass for the end of this program
        lines = [each.lineno for each in traceback.extract_tb(error.__traceback__) if each.filename == str(path)]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else 0
        return {"mistake": f"{type(error).__name__}: {error}", "line": line or 0}


def _load(path: Path) -> ModuleType:
    """Runs the file, as a module of its own name."""
    sys.dont_write_bytecode = True
    sys.meta_path.insert(0, StandIn(is_of_siirl))
    sys.path.insert(0, str(path.parent))
    absent = {name for name in packages(ast.parse(path.read_bytes())) if importlib.util.find_spec(name) is None}
    sys.meta_path.append(StandIn(lambda name: name.partition(".")[0] in absent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _plain(built: Any) -> dict[str, Any]:
    graph = built.build() if isinstance(built, Pipeline) else built
    if not isinstance(graph, TaskGraph):
        raise TypeError(f"the function returned {type(graph).__name__}, and a TaskGraph is due")
    return {"name": graph.graph_id, "nodes": graph.nodes}


def main() -> None:
    path, function = Path(sys.argv[1]), (sys.argv[2:] or [""])[0]
    with os.fdopen(os.dup(1), "w") as answer:
        os.dup2(2, 1)  # what the file prints is not what it builds
        json.dump(build(path, function), answer, default=str)


if __name__ == "__main__":
    main()
