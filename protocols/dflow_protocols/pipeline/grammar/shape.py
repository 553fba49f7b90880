"""Shapes: what a value of a spec may look like, as data. Reading, the JSON Schema and the reference follow from them.

A key with the default REQUIRED must be there; one with the default None may be absent and then is None (some are
derived from the rest of the pipeline later). Numbers may be written as text: YAML 1.1 takes `1e-3` for text, and
`warmup // 2` is an expression over the params.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from .expression import ExpressionError, Value, parse
from .problem import Problem, meant, suggest
from .text import half_character, is_text

REQUIRED: Final = "\0required"  # no value of a spec has this text


@dataclass(frozen=True, slots=True)
class Key:
    """What all shapes have. `unwritten`: the key is left out of the canonical form where it has its default, because
    it came after pipelines had been run: the ids, and so the seeds, of those that do not use it stay."""

    unwritten: bool = field(default=False, kw_only=True)


@dataclass(frozen=True, slots=True)
class Number(Key):
    about: str
    default: Any = REQUIRED
    integer: bool = False
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None


@dataclass(frozen=True, slots=True)
class Text(Key):
    about: str
    default: Any = REQUIRED
    choices: tuple[str, ...] = ()
    pattern: str = ""  # beside `choices`: what it may be instead
    form: str = ""  # the pattern in words


@dataclass(frozen=True, slots=True)
class Flag(Key):
    about: str
    default: Any = REQUIRED


@dataclass(frozen=True, slots=True)
class Items(Key):
    about: str
    item: Shape
    default: Any = REQUIRED
    count: int | None = None  # exactly so many
    at_least: int = 0


@dataclass(frozen=True, slots=True)
class Section(Key):
    """A mapping of known keys."""

    about: str
    keys: Mapping[str, Shape]
    default: Any = REQUIRED


@dataclass(frozen=True, slots=True)
class Named(Key):
    """A mapping from names that the user chooses to values of one shape."""

    about: str
    item: Shape
    default: Any = REQUIRED


@dataclass(frozen=True, slots=True)
class Variants(Key):
    """A mapping of one of several kinds; exactly one of `kinds`' keys is in it and says which."""

    about: str
    kinds: Mapping[str, Section]
    default: Any = REQUIRED


@dataclass(frozen=True, slots=True)
class Kinds(Key):
    """A mapping whose key `tag` says which of several kinds it is, and so which keys it may have beside the shared."""

    about: str
    tag: str
    choice: Text  # of the kind, one of `kinds`
    kinds: Mapping[str, Mapping[str, Shape]]
    shared: Mapping[str, Shape] = field(default_factory=dict)
    default: Any = REQUIRED
    own: Mapping[str, Shape] | None = None  # of a kind that is none of `kinds`, by the choice's pattern

    def keys_of(self, kind: str) -> Mapping[str, Shape]:
        return {self.tag: self.choice, **self.kinds.get(kind, self.own or {}), **self.shared}

    def others_of(self, kind: str) -> Mapping[str, str]:
        """Keys that this kind has not, with the first one that has them."""
        own = self.keys_of(kind)
        found = {key: self.choice.form for key in self.own or {} if key not in own}
        return found | {key: name for name, keys in reversed([*self.kinds.items()]) for key in keys if key not in own}


@dataclass(frozen=True, slots=True)
class Free(Key):
    """Any mapping that JSON can say; read by user code or by an engine."""

    about: str
    default: Any = REQUIRED


@dataclass(frozen=True, slots=True)
class Condition(Key):
    """An expression over params and `step` that is true or false."""

    about: str
    default: Any = REQUIRED


Shape: TypeAlias = Number | Text | Flag | Items | Section | Named | Variants | Kinds | Free | Condition

NAME = r"[A-Za-z_][A-Za-z0-9_]{0,63}"
NAME_FORM = "a letter, then letters, digits and _ (64 at most)"
MAX_DEPTH = 16  # of a free mapping


def at(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


@dataclass(slots=True)
class Reader:
    """Reads values by their shapes, filling defaults in and noting every problem."""

    constants: Mapping[str, Value]
    problems: list[Problem] = field(default_factory=list)
    subject: str = ""  # what is being read, for people who do not read paths; before each problem

    def define(self, constants: Mapping[str, Value]) -> None:
        """What expressions may use from here on."""
        self.constants = constants

    def turn_to(self, subject: str) -> None:
        self.subject = subject

    def note(self, path: str, what: str, hint: str) -> None:
        self.problems.append(Problem(path, self.subject + what, hint))

    def read(self, shape: Shape, value: Any, path: str) -> Any:
        """`value` as the canonical form has it; None if it is wrong (which is noted) or absent."""
        if value is None:
            if shape.default == REQUIRED:
                self.note(path, f"`{_last(path)}` is missing", f"it is {_expected(shape)}: {shape.about}")
                return None
            if shape.default is None:
                return None
            value = shape.default
        match shape:
            case Number():
                return self._number(shape, value, path)
            case Text():
                return self._text(shape, value, path)
            case Flag():
                return value if isinstance(value, bool) else self._wrong(shape, value, path)
            case Items():
                return self._items(shape, value, path)
            case Section():
                return self._table(shape, value, path)
            case Named():
                return self._named(shape, value, path)
            case Variants():
                return self._variants(shape, value, path)
            case Kinds():
                return self._kinds(shape, value, path)
            case Free():
                return self._free(shape, value, path)
            case Condition():
                return self._condition(shape, value, path)

    def _wrong(self, shape: Shape, value: Any, path: str) -> None:
        self.note(path, f"`{_last(path)}` is {_kind(value)}", f"it has to be {_expected(shape)}")

    def _expression(self, value: str, path: str, *, with_step: bool) -> Any:
        try:
            return parse(value, self.constants, with_step=with_step)
        except ExpressionError as error:
            names = [*self.constants, *(["step"] if with_step else [])]
            if error.unknown == "step":
                hint = "only `when` may depend on the step"
            else:
                hint = suggest(error.unknown, names, "names") if error.unknown else "for example `warmup + 10`"
            self.note(path, f"`{_last(path)}`: `{value}` {error}", hint)
            return None

    def _number(self, shape: Number, value: Any, path: str) -> Any:
        if isinstance(value, str):
            expression = self._expression(value, path, with_step=False)
            if expression is None:
                return None
            value = expression.constant
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= 1 << 53:
            return self._wrong(shape, value, path)
        if shape.integer and value != math.floor(value):
            return self._wrong(shape, value, path)
        if not _is_in_range(shape, value):
            self.note(path, f"`{_last(path)}` is {value:g}", f"it has to be {_expected(shape)}")
            return None
        return int(value) if shape.integer else float(value)

    def _text(self, shape: Text, value: Any, path: str) -> Any:
        if not isinstance(value, str) or (not value and not shape.choices):
            return self._wrong(shape, value, path)
        if not is_text(value):
            return self._half(value, path)
        if value in shape.choices:
            return value
        is_of_form = bool(shape.pattern) and re.fullmatch(shape.pattern, value) is not None
        if shape.choices and not is_of_form:
            other = f" (or give {shape.form})" if shape.pattern and not meant(value, shape.choices) else ""
            self.note(path, f"`{_last(path)}` is `{value}`", suggest(value, shape.choices, "values") + other)
            return None
        if shape.pattern and not is_of_form:
            self.note(path, f"`{_last(path)}` is `{value}`", f"it has to be {shape.form}")
            return None
        return value

    def _half(self, value: str, path: str) -> None:
        what = f"`{_last(path)}` has {half_character(value)}, which is half a character"
        self.note(path, what, "write the whole character")

    def _items(self, shape: Items, value: Any, path: str) -> Any:
        if not isinstance(value, list | tuple):
            return self._wrong(shape, value, path)
        if len(value) < shape.at_least or (shape.count is not None and len(value) != shape.count):
            self.note(path, f"`{_last(path)}` has {len(value)} items", f"it has to be {_expected(shape)}")
            return None
        return [self.read(shape.item, item, f"{path}[{index}]") for index, item in enumerate(value)]

    def _table(self, shape: Section, value: Any, path: str) -> Any:
        if not isinstance(value, Mapping):
            return self._wrong(shape, value, path)
        self.unknown_keys(value, shape.keys, path)
        found = {key: self.read(inner, value.get(key), at(path, key)) for key, inner in shape.keys.items()}
        return {key: item for key, item in found.items() if not is_left_out(shape.keys[key], item)}

    def unknown_keys(self, value: Mapping[Any, Any], known: Mapping[str, Any], path: str) -> None:
        place = f"`{_last(path)}`" if path else "a pipeline"
        for key in value:
            if key not in known:
                self.note(at(path, str(key)), f"`{key}` is no key of {place}", suggest(str(key), known, "keys"))

    def _named(self, shape: Named, value: Any, path: str) -> Any:
        if not isinstance(value, Mapping):
            return self._wrong(shape, value, path)
        for name in value:
            if not isinstance(name, str) or not re.fullmatch(NAME, name):
                self.note(at(path, str(name)), f"`{name}` is no name", f"a name is {NAME_FORM}")
        return {str(name): self.read(shape.item, inner, at(path, str(name))) for name, inner in value.items()}

    def _variants(self, shape: Variants, value: Any, path: str) -> Any:
        if not isinstance(value, Mapping):
            return self._wrong(shape, value, path)
        present = [kind for kind in shape.kinds if value.get(kind) is not None]
        known = sorted({key for table in shape.kinds.values() for key in table.keys})
        if len(present) == 1:
            own = shape.kinds[present[0]]
            taken_away = {key for key in known if key not in own.keys and value.get(key) is None}  # by an overlay
            return self._table(own, {key: inner for key, inner in value.items() if key not in taken_away}, path)
        self.unknown_keys(value, dict.fromkeys(known), path)
        if any(meant(str(key), shape.kinds) for key in value if key not in known):
            return None  # a misspelt kind was noted just now
        both = " and ".join(f"`{kind}`" for kind in present)
        what = f"has {both}" if present else f"has none of {', '.join(f'`{kind}`' for kind in shape.kinds)}"
        self.note(path, f"`{_last(path)}` {what}", "it has to have exactly one of them")
        return None

    def _kinds(self, shape: Kinds, value: Any, path: str) -> Any:
        if not isinstance(value, Mapping):
            return self._wrong(shape, value, path)
        kind = self.read(shape.choice, value.get(shape.tag), at(path, shape.tag))
        if kind is None:
            return None
        others = shape.others_of(kind)
        for key in value:
            if key in others and value[key] is not None:  # an overlay takes a key away by null
                what = f"`{key}` is no setting of `{kind}`"
                self.note(at(path, key), what, f"leave it out, or write `{shape.tag}: {others[key]}`")
        own = {key: inner for key, inner in value.items() if key not in others}
        return self._table(Section(shape.about, shape.keys_of(kind)), own, path)

    def _free(self, shape: Free, value: Any, path: str) -> Any:
        if not isinstance(value, Mapping):
            return self._wrong(shape, value, path)
        return self._plain(value, path, MAX_DEPTH)

    def _plain(self, value: Any, path: str, depth: int) -> Any:
        match value:
            case None | bool():
                return value
            case str():
                return value if is_text(value) else self._half(value, path)
            case int() | float() if abs(value) <= 1 << 63:  # nan is not
                return value
            case list() | tuple() if depth:
                return [self._plain(item, f"{path}[{index}]", depth - 1) for index, item in enumerate(value)]
            case Mapping() if depth and all(isinstance(key, str) and is_text(key) for key in value):
                return {key: self._plain(value[key], at(path, key), depth - 1) for key in value}
        self.note(path, f"`{_last(path)}` is {_kind(value)}", "use text, numbers, true/false, lists and mappings")
        return None

    def _condition(self, shape: Condition, value: Any, path: str) -> Any:
        if not isinstance(value, bool | str):
            return self._wrong(shape, value, path)
        expression = self._expression(str(value), path, with_step=True)
        if expression is None:
            return None
        if not expression.is_condition:
            self.note(path, f"`{_last(path)}`: `{value}` is a number, not a condition", "for example `step >= 10`")
            return None
        return expression.text


def is_left_out(shape: Shape, value: Any) -> bool:
    """Whether the canonical form has no word of a key with this value."""
    default = shape.default
    return shape.unwritten and value in (default, list(default) if isinstance(default, tuple) else default)


def _is_in_range(shape: Number, value: float) -> bool:
    return (
        (shape.at_least is None or value >= shape.at_least)
        and (shape.above is None or value > shape.above)
        and (shape.at_most is None or value <= shape.at_most)
        and (shape.below is None or value < shape.below)
    )


def _last(path: str) -> str:
    """How a person calls the value at `path`."""
    return path.rpartition(".")[2] or "pipeline"


def _kind(value: Any) -> str:
    match value:
        case None:
            return "empty"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"the number {value:g}" if -(1 << 63) < value < 1 << 63 else "a number that is too large"
        case str():
            return f"the text `{value[:40]}`" if value else "empty text"
        case list() | tuple():
            return "a list"
        case Mapping():
            return "a mapping"
    return f"of type {type(value).__name__}"


def _expected(shape: Shape) -> str:
    match shape:
        case Number():
            limits = (
                (shape.at_least, "at least"),
                (shape.above, "above"),
                (shape.at_most, "at most"),
                (shape.below, "below"),
            )
            bounds = " and ".join(f"{word} {limit:g}" for limit, word in limits if limit is not None)
            return f"{'a whole number' if shape.integer else 'a number'}{' ' + bounds if bounds else ''}"
        case Text():
            return f"one of {', '.join(shape.choices)}" if shape.choices else (shape.form or "text")
        case Flag():
            return "true or false"
        case Items():
            number = (
                f"{shape.count} " if shape.count is not None else f"{shape.at_least} or more " * bool(shape.at_least)
            )
            return f"a list of {number}items"
        case Condition():
            return "a condition, such as `step >= 10`"
        case Variants():
            return f"a mapping with one of {', '.join(f'`{kind}`' for kind in shape.kinds)}"
        case _:
            return "a mapping"
