"""What became of a pipeline: the spec, with a remark where something was filled in, and what has no twin."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

NO_TWIN, TO_DO, REFUSED, FILLED_IN, LEFT_OUT = "no twin", "to do", "refused", "filled in", "left out"
STAGE_KEYS = ("id", "op", "model", "engine", "reads", "writes", "when", "every", "config")  # as they are written
KINDS = (NO_TWIN, TO_DO, REFUSED, FILLED_IN, LEFT_OUT)
"""A note's kind: what siiRL has and this program has not; what a person has to do; what validation says of the spec;
what siiRL's pipeline did not say; what needs no twin here."""


@dataclass(frozen=True, slots=True)
class Note:
    kind: str
    where: str  # a node or setting of siiRL, or a place of the spec
    what: str


@dataclass(slots=True)
class Draft:
    """`spec`: the format's mapping. `remarks`: by place, such as `steps` or `stages.roll`."""

    source: str
    spec: dict[str, Any] = field(default_factory=dict)
    remarks: dict[str, list[str]] = field(default_factory=dict)
    _notes: list[Note] = field(default_factory=list)

    @property
    def name(self) -> str:
        return str(self.spec["name"])

    @property
    def notes(self) -> list[Note]:
        """By kind, then as they were made."""
        return sorted(dict.fromkeys(self._notes), key=lambda note: KINDS.index(note.kind))

    def note(self, kind: str, where: str, what: str) -> None:
        self._notes.append(Note(kind, where, what))

    def remark(self, place: str, what: str) -> None:
        """A comment in the spec."""
        told = self.remarks.setdefault(place, [])
        if what not in told:
            told.append(what)

    def fill_in(self, place: str, where: str, what: str) -> None:
        """A value that siiRL's pipeline did not say, told in both places."""
        self.remark(place, f"filled in: {what}")
        self.note(FILLED_IN, where, what)

    def text(self) -> str:
        """The spec as YAML, a line for each model, data set and stage, remarks above."""
        return "\n".join([f"# Made from {self.source} by `dflow import siirl`.", *self._lines()]) + "\n"

    def _lines(self) -> Iterator[str]:
        for key, value in self.spec.items():
            yield from (f"# {remark}" for remark in self.remarks.get(key, ()))
            if key == "stages":
                yield "stages:"
                for stage in value:
                    yield from self._item(
                        f"stages.{stage['id']}", f"  - {_flow({key: stage[key] for key in STAGE_KEYS if key in stage})}"
                    )
            elif key in ("models", "data"):
                yield f"{key}:"
                for name, inner in value.items():
                    yield from self._item(f"{key}.{name}", f"  {name}: {_flow(inner)}")
            else:
                yield f"{key}: {_flow(value)}"

    def _item(self, place: str, line: str) -> Iterator[str]:
        yield from (f"  # {remark}" for remark in self.remarks.get(place, ()))
        yield line


def _flow(value: Any) -> str:
    """A value on one line."""
    is_scalar = not isinstance(value, Mapping | list)
    text = yaml.safe_dump(
        [value] if is_scalar else value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=math.inf
    ).strip()
    return text[1:-1] if is_scalar else text
