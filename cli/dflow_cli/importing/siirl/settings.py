"""What a siiRL run is told beside its pipeline: dotted keys with values, of a command line, a YAML file or a script.

Scripts are read and not run: assignments, and words of the form `a.b=value`, with variables and sums put in.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from dflow_protocols.pipeline.grammar.expression import ExpressionError, parse

from ...errors import CliError
from .workflow import Node

OVERRIDE = re.compile(r"\+{0,2}([a-z_]\w*(?:\.\w+)+)=(.*)", re.DOTALL)
_ASSIGNMENT = re.compile(r"\s*(?:export\s+|local\s+)?([A-Za-z_]\w*)=(.*)")
_SUM = re.compile(r"\$\(\(([^()]*(?:\([^()]*\)[^()]*)*)\)\)")
_VARIABLE = re.compile(r"\$(?:\{(\w+)(?::?-([^}]*))?\}|(\w+))")
_COMMENT = re.compile(r"(?:^|\s)#.*")


@dataclass(slots=True)
class Settings:
    """`told`: by dotted key. `asked`: keys that somebody wanted to know, whether they were told or not."""

    told: Mapping[str, Any] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)

    def get(self, key: str, default: Any = None) -> Any:
        self.asked.add(key)
        found = self.told.get(key)
        return default if found is None else found

    def number(self, key: str, default: float) -> float:
        """A setting that is a number. Raises CliError for one that is not, such as a variable that nobody assigned."""
        told = self.get(key, default)
        try:
            return told if isinstance(told, int | float) else float(told)
        except (TypeError, ValueError):
            hint = f"give it beside: `--config {key}=NUMBER`"
            raise CliError(f"`{key}` is `{told}`, which is no number", where="--config", hint=hint) from None

    def has(self, key: str) -> bool:
        return self.told.get(key) is not None

    def of(self, node: Node, branch: str) -> Settings:
        """As this node sees them: its own keys in place of those under `branch`."""
        own = {f"{branch}.{key}": value for key, value in node.config.items()}
        return Settings({**self.told, **own}, self.asked)

    def unasked(self) -> list[str]:
        """Keys that were told and that nobody wanted to know."""
        return sorted(set(self.told) - self.asked)


def read_settings(given: Iterable[str]) -> Settings:
    """Of each `KEY=VALUE`, and of each file that is named; later ones win. Raises CliError."""
    told: dict[str, Any] = {}
    for text in given:
        override = OVERRIDE.fullmatch(text)
        if override and not Path(text).is_file():
            told[override[1]] = _value(override[2])
        else:
            told |= _of_file(Path(text))
    return Settings(told)


def _of_file(path: Path) -> dict[str, Any]:
    hint = "give KEY=VALUE, a YAML file of settings, or the script that starts the run"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CliError("there is no such file", where=f"--config {path}", hint=hint) from None
    except UnicodeDecodeError:
        raise CliError("this is no text", where=f"--config {path}", hint=hint) from None
    if path.suffix not in (".yaml", ".yml", ".json"):
        return dict(read_script(text.splitlines()))
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise CliError(f"this is not YAML: {error}", where=f"--config {path}", hint=hint) from None
    if not isinstance(raw, Mapping):
        raise CliError("it holds no settings", where=f"--config {path}", hint=hint)
    return dict(_flat(raw))


def _flat(raw: Mapping[Any, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in raw.items():
        name = f"{above}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        else:
            yield name, value


def read_script(lines: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """The settings of a shell script that starts siiRL. The command is put together at the end of it, so that settings
    have the last values of variables."""
    variables: dict[str, str] = {}
    told: dict[str, str] = {}
    for line in lines:
        plain = _COMMENT.sub("", line).strip().removesuffix("\\").strip()
        override = OVERRIDE.fullmatch(plain)
        assignment = _ASSIGNMENT.fullmatch(plain)
        if override:
            told[override[1]] = override[2]
        elif assignment:
            variables[assignment[1]] = _put_in(assignment[2], variables)
    for key, text in told.items():
        yield key, _value(_put_in(text, variables))


def _put_in(text: str, variables: Mapping[str, str]) -> str:
    """A text of a script with its variables and sums put in; what nobody assigned stays as it is written."""

    def known(match: re.Match[str]) -> str:
        name = match[1] or match[3]
        return variables.get(name, match[2] if match[2] is not None else match[0])

    return _SUM.sub(lambda match: _sum(match, variables), _VARIABLE.sub(known, _unquoted(text.replace("\\$", "$"))))


def _sum(match: re.Match[str], variables: Mapping[str, str]) -> str:
    """What a shell makes of `$((...))`; as it is written where that cannot be told."""
    numbers = {name: int(value) for name, value in variables.items() if value.isdecimal()}
    try:
        constant = parse(match[1].replace("/", "//"), numbers, with_step=False).constant
    except ExpressionError:
        return match[0]
    return match[0] if constant is None else str(constant)


def _unquoted(text: str) -> str:
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] in "'\"" and text[-1] == text[0] else text


def _value(text: str) -> Any:
    """As YAML has it, which is how siiRL reads its command line."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text
