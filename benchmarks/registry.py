"""Which benchmarks there are, and how the words of a command line become the arguments of one.

A benchmark is a module or a room of this folder: its docstring says what is asked and how, its
`measure(tell, *, ...)` gives the figures, and `QUICK` has the arguments of the short form. Each keyword of `measure` is
an option of the command line: `Annotated[int, "what it is"]` with a default.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from benchmarks.figure import Figure

BENCHMARKS = (
    "algorithms",
    "apply",
    "engines",
    "goodput",
    "gpu/check",
    "growth",
    "hostile",
    "lag",
    "membership",
    "membership_vs_serf",
    "mesh_bytes",
    "mesh_memory",
    "micro/exchange",
    "micro/fetch",
    "micro/latency",
    "micro/partitions",
    "micro/reconcile",
    "micro/room",
    "nemesis",
    "overhead",
    "plain_loop",
    "scaling",
    "scaling/causes",
    "slots",
    "staleness",
    "stealing",
    "tasks",
    "weights",
)
FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Option:
    """A keyword of `measure`. `kind`: of its value, or of each of its values if it takes several."""

    name: str
    kind: type
    default: Any
    meaning: str
    is_many: bool
    choices: tuple[Any, ...] | None

    def add_to(self, parser: argparse.ArgumentParser) -> None:
        shown = " ".join(map(str, self.default)) if self.is_many else str(self.default)
        meaning = f"{self.meaning} ({shown or 'none'})".replace("%", "%%")
        flag = f"--{self.name.replace('_', '-')}"
        if self.kind is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=meaning)
        else:
            parser.add_argument(
                flag,
                type=self.kind,
                action="extend" if self.is_many else "store",
                nargs="*" if self.is_many else None,
                choices=self.choices,
                metavar=None if self.choices else self.kind.__name__.upper(),
                help=meaning,
            )


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One of them, loaded."""

    name: str
    about: str
    measure: Callable[..., Sequence[Figure]]
    options: tuple[Option, ...]
    quick: Mapping[str, Any]

    def settings(self, given: Mapping[str, Any], quick: bool) -> dict[str, Any]:
        """Every argument of a measurement: what was given, else that of the short form, else the default."""
        chosen = {option.name: option.default for option in self.options} | (dict(self.quick) if quick else {})
        for option in self.options:
            value = given.get(option.name)
            if value is not None:
                chosen[option.name] = tuple(value) if option.is_many else value
        return chosen


def load(name: str) -> Benchmark:
    """The benchmark of this name, which is one of `BENCHMARKS`."""
    module = importlib.import_module(f"benchmarks.{name.replace('/', '.')}")
    return Benchmark(name, module.__doc__ or "", module.measure, tuple(options_of(module.measure)), module.QUICK)


def options_of(measure: Callable[..., Any]) -> list[Option]:
    hints = get_type_hints(measure, include_extras=True)
    found = []
    for name, parameter in inspect.signature(measure).parameters.items():
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            continue
        kind, meaning = get_args(hints[name])
        is_many = get_origin(kind) is tuple
        kind = get_args(kind)[0] if is_many else kind
        choices = get_args(kind) if get_origin(kind) is Literal else None
        kind = type(choices[0]) if choices else kind
        found.append(Option(name, kind, parameter.default, meaning, is_many, choices))
    return found


def question(name: str) -> str:
    """What it asks: the first line of its module, read without loading what it needs."""
    room = FOLDER / name / "__init__.py"
    module = room if room.exists() else FOLDER / f"{name}.py"
    text = ast.get_docstring(ast.parse(module.read_text())) or ""
    return text.splitlines()[0]
