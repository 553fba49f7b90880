"""Expressions of a spec, such as `step >= warmup + 10`: arithmetic, comparisons and and/or/not over params and `step`.

Params are put in and what is constant is folded as an expression is read, so its text is the same on every node and
needs nothing else to be evaluated. No calls, no powers, no attributes; size is bounded.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

Value: TypeAlias = bool | int | float

MAX_CHARACTERS = 400
MAX_NUMBER = 1 << 53  # what a float64 counts exactly

_ARITHMETIC: Mapping[type[ast.operator], tuple[str, Callable[[Value, Value], Value]]] = {
    ast.Add: ("+", operator.add),
    ast.Sub: ("-", operator.sub),
    ast.Mult: ("*", operator.mul),
    ast.Div: ("/", operator.truediv),
    ast.FloorDiv: ("//", operator.floordiv),
    ast.Mod: ("%", operator.mod),
}
_COMPARISONS: Mapping[type[ast.cmpop], tuple[str, Callable[[Value, Value], bool]]] = {
    ast.Lt: ("<", operator.lt),
    ast.LtE: ("<=", operator.le),
    ast.Gt: (">", operator.gt),
    ast.GtE: (">=", operator.ge),
    ast.Eq: ("==", operator.eq),
    ast.NotEq: ("!=", operator.ne),
}


class ExpressionError(ValueError):
    """The text is no expression. `unknown`: the name in it that nobody defined, if that is why."""

    def __init__(self, what: str, unknown: str = "") -> None:
        super().__init__(what)
        self.unknown = unknown


@dataclass(frozen=True, slots=True)
class Expression:
    """A function of the step. `text` reads back as the same expression."""

    text: str
    run: Callable[[int], Value]  # raises ExpressionError where it has no value
    is_condition: bool  # gives true or false, not a number
    constant: Value | None  # its value if it does not depend on the step


def parse(text: str, constants: Mapping[str, Value], *, with_step: bool = True) -> Expression:
    """Read an expression over `constants` and, if `with_step`, `step`. Raises ExpressionError."""
    if len(text) > MAX_CHARACTERS:
        raise ExpressionError(f"is longer than {MAX_CHARACTERS} characters")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ExpressionError("is no expression") from None
    return _Reader(constants, with_step).read(tree.body)


class _Reader:
    def __init__(self, constants: Mapping[str, Value], with_step: bool) -> None:
        self._constants = constants
        self._with_step = with_step

    def read(self, node: ast.expr) -> Expression:
        match node:
            case ast.Constant(value=bool() | int() | float() as value):
                return _constant(value)
            case ast.Name(id=name):
                return self._name(name)
            case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
                inner = self._number(operand)
                if isinstance(sign, ast.UAdd):
                    return inner
                return _fold(Expression(f"-{_wrap(inner)}", lambda s: -inner.run(s), False, None), (inner,))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                inner = self._condition(operand)
                return _fold(Expression(f"not {_wrap(inner)}", lambda s: not inner.run(s), True, None), (inner,))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
                return self._arithmetic(self._number(left), _ARITHMETIC[type(op)], self._number(right))
            case ast.Compare(left=left, ops=ops, comparators=rest) if all(type(op) in _COMPARISONS for op in ops):
                return self._compare([self._number(part) for part in (left, *rest)], ops)
            case ast.BoolOp(op=joint, values=values):
                return self._logic([self._condition(value) for value in values], isinstance(joint, ast.And))
            case _:
                raise ExpressionError("has something other than numbers, names, + - * / // %, comparisons, and/or/not")

    def _name(self, name: str) -> Expression:
        if name in self._constants:
            return _constant(self._constants[name])
        if name == "step" and self._with_step:
            return Expression("step", lambda s: s, False, None)
        raise ExpressionError(f"names `{name}`, which is no param", name)

    def _number(self, node: ast.expr) -> Expression:
        part = self.read(node)
        if part.is_condition:
            raise ExpressionError(f"uses the condition `{part.text}` as a number")
        return part

    def _condition(self, node: ast.expr) -> Expression:
        part = self.read(node)
        if not part.is_condition:
            raise ExpressionError(f"uses the number `{part.text}` as a condition")
        return part

    def _arithmetic(
        self, left: Expression, sign: tuple[str, Callable[[Value, Value], Value]], right: Expression
    ) -> Expression:
        symbol, function = sign

        def run(step: int) -> Value:
            try:
                value = function(left.run(step), right.run(step))
            except (ZeroDivisionError, OverflowError):
                raise ExpressionError("divides by zero") from None
            if abs(value) > MAX_NUMBER:
                raise ExpressionError("goes beyond 2**53")
            return value

        return _fold(Expression(f"{_wrap(left)} {symbol} {_wrap(right)}", run, False, None), (left, right))

    def _compare(self, parts: list[Expression], ops: list[ast.cmpop]) -> Expression:
        signs = [_COMPARISONS[type(op)] for op in ops]
        text = _wrap(parts[0]) + "".join(f" {s} {_wrap(p)}" for (s, _), p in zip(signs, parts[1:], strict=True))
        triples = [(parts[i], function, parts[i + 1]) for i, (_, function) in enumerate(signs)]

        def run(step: int) -> bool:
            return all(function(left.run(step), right.run(step)) for left, function, right in triples)

        return _fold(Expression(text, run, True, None), tuple(parts))

    def _logic(self, parts: list[Expression], every: bool) -> Expression:
        test = all if every else any
        text = (" and " if every else " or ").join(_wrap(part) for part in parts)
        return _fold(Expression(text, lambda s: test(part.run(s) for part in parts), True, None), tuple(parts))


def _constant(value: Value) -> Expression:
    if not isinstance(value, bool) and not abs(value) <= MAX_NUMBER:  # nan is no number either
        raise ExpressionError("goes beyond 2**53")
    return Expression(repr(value), lambda s: value, isinstance(value, bool), value)


def _fold(whole: Expression, parts: tuple[Expression, ...]) -> Expression:
    if any(part.constant is None for part in parts):
        return whole
    return _constant(whole.run(0))


def _wrap(part: Expression) -> str:
    return part.text if part.constant is not None or part.text == "step" else f"({part.text})"
