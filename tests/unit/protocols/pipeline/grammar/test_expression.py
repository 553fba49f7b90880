"""Expressions: they mean what Python means by them, whatever the text, and stay within what a spec may say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dflow_protocols.pipeline.grammar.expression import ExpressionError, parse

CONSTANTS = {"warmup": 50, "share": 0.25}

numbers: st.SearchStrategy[str] = st.deferred(
    lambda: st.one_of(
        st.integers(0, 1000).map(str),
        st.sampled_from(["step", "warmup", "share", "1e-3", "-7"]),
        st.tuples(numbers, st.sampled_from(["+", "-", "*", "//", "%", "/"]), numbers).map(
            lambda parts: f"({parts[0]} {parts[1]} {parts[2]})"
        ),
    )
)
conditions: st.SearchStrategy[str] = st.deferred(
    lambda: st.one_of(
        st.tuples(numbers, st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), numbers).map(" ".join),
        st.tuples(conditions, st.sampled_from(["and", "or"]), conditions).map(
            lambda parts: f"({parts[0]}) {parts[1]} ({parts[2]})"
        ),
        conditions.map(lambda inner: f"not ({inner})"),
        st.sampled_from(["True", "0 < step <= 10"]),
    )
)


@given(text=st.one_of(numbers, conditions), step=st.integers(0, 10_000))
def test_an_expression_means_what_python_means_by_it(text: str, step: int) -> None:
    """A user who knows Python knows the expressions; those without a value are refused instead."""
    try:
        value = parse(text, CONSTANTS).run(step)
    except ExpressionError:
        return
    assert value == eval(text, {"__builtins__": {}}, {**CONSTANTS, "step": step})


@given(text=st.one_of(numbers, conditions))
def test_the_text_of_an_expression_reads_back_as_itself(text: str) -> None:
    """The canonical form holds this text, and its id must survive another reading, without the params."""
    try:
        first = parse(text, CONSTANTS)
    except ExpressionError:
        return
    second = parse(first.text, {})
    assert (second.text, second.is_condition, second.constant) == (first.text, first.is_condition, first.constant)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("step >=", "is no expression"),
        ("step >= warmpu", "names `warmpu`, which is no param"),
        ("__import__('os')", "has something other than numbers, names, + - * / // %, comparisons, and/or/not"),
        ("2 ** 9", "has something other than numbers, names, + - * / // %, comparisons, and/or/not"),
        ("warmup / 0", "divides by zero"),
        ("(step < 3) + 1", "uses the condition `step < 3` as a number"),
        ("step and True", "uses the number `step` as a condition"),
        ("9007199254740993", "goes beyond 2**53"),
        ("1 + " * 200 + "1", "is longer than 400 characters"),
        ("(" * 150 + "1" + ")" * 150 + "(", "is no expression"),
    ],
)
def test_what_is_no_expression_is_told_why(text: str, why: str) -> None:
    """A spec comes from anyone who may submit: nothing but arithmetic is ever run."""
    with pytest.raises(ExpressionError) as caught:
        parse(text, CONSTANTS).run(0)
    assert str(caught.value) == why


def test_an_unknown_name_is_told_apart_from_bad_syntax() -> None:
    """So that the nearest known name can be offered."""
    with pytest.raises(ExpressionError) as caught:
        parse("step < warm", {"warmup": 1})
    assert caught.value.unknown == "warm"
