"""What a run changed, by its own answers."""

from __future__ import annotations

from typing import Any

from dflow_cli.report.before_after import ends_of, measured_of, pairs_of


def said(step: int, prompt: str, completion: str, **more: Any) -> dict[str, Any]:
    return {"step": step, "prompt": prompt, "completion": completion, "reward": float(step > 3), **more}


def test_one_question_is_shown_as_it_was_answered_first_and_last() -> None:
    """Held-out questions come at every evaluation; those that lie furthest apart say most."""
    samples = [
        said(4, "b", "4"),
        said(9, "a", "9", answer="x"),
        said(2, "b", "2"),
        said(0, "a", "0"),
        said(1, "c", "1"),
    ]
    pairs = pairs_of(samples)
    assert [(pair.before.completion, pair.after.completion) for pair in pairs] == [("0", "9"), ("2", "4")]
    assert (pairs[0].before.reward, pairs[0].after.reward, pairs[0].after.answer) == (0.0, 1.0, "x")


def test_a_question_that_came_in_one_step_only_is_no_pair() -> None:
    """Two completions of a group are no progress. What there is of the ends is shown then."""
    samples = [said(1, "a", "x"), said(1, "a", "y"), said(6, "b", "z")]
    assert pairs_of(samples) == []
    first, last = ends_of(samples)
    assert ([each.completion for each in first], [each.completion for each in last]) == (["x", "y"], ["z"])
    assert ends_of(samples[:2]) == ([], [])


def test_each_evaluation_is_told_at_its_first_and_its_last_step() -> None:
    """Whatever the order of the rows."""
    rows = [{"stage": "b", "step": 5, "accuracy": 0.5}, {"stage": "a", "step": 20, "accuracy": 0.9, "count": 10}]
    rows += [{"stage": "a", "step": 0, "accuracy": 0.1, "count": 10}]
    measured = measured_of(rows)
    assert [(each.stage, each.first_step, each.first, each.last_step, each.last) for each in measured] == [
        ("a", 0, 0.1, 20, 0.9),
        ("b", 5, 0.5, 5, 0.5),
    ]
