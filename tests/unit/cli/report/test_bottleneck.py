"""Each sentence of the report follows from figures, and so does what would help."""

from __future__ import annotations

import pytest

from dflow_cli.report.bottleneck import Finding, Setting, findings_of
from dflow_cli.report.critical import Cause
from dflow_cli.report.loads import Load, Tail, Wait
from tests.unit.cli.report.made import load

OPS = {"roll": "generate", "learn": "train", "score": "reward", "check": "evaluate", "own": "mine:stage"}
TWO = Setting(OPS, slots=2, hosts=2, has_gpus=False)


def first(loads: list[Load], waits: list[Wait] | None = None, tails: list[Tail] | None = None) -> Finding:
    return findings_of(loads, waits or [], tails or [], TWO)[0]


def wait(cause: Cause, share: float, times: int = 10) -> Wait:
    return Wait(cause, 35.0 * share, times, share, 3.5 * share, True)


def test_the_largest_part_of_a_step_is_told_first_with_share_and_seconds() -> None:
    """The rest only where it is worth a look."""
    found = findings_of([load("roll"), load("learn", share=0.3), load("score", share=0.01)], [], [], TWO)
    assert [finding.stage for finding in found] == ["roll", "learn"]
    assert found[0].what == (
        "`roll` takes 60 % of the time of the steps (2.10 s in each of the 10 steps that have it), on n0 and n1 alike."
    )


def test_a_part_of_training_is_told_with_what_all_of_it_takes() -> None:
    """Gradient and update are helped by different things, and are one stage to whoever wrote the pipeline."""
    loads = [load("roll", share=0.35), load("learn", share=0.3), load("learn.apply", share=0.2)]
    told = [finding.what for finding in findings_of(loads, [], [], TWO)]
    assert [text.partition(" ")[0] for text in told] == ["`roll`", "`learn`", "`learn.apply`"]
    assert "other parts" not in told[0]
    assert told[1].endswith(" With the other parts of `learn` it is 50 %.")


def test_more_nodes_help_as_long_as_there_are_more_pieces_than_slots() -> None:
    """Else a node more would find nothing to do."""
    assert first([load("roll")]).help == (
        "Faster sampling (a GPU) or more nodes would help: a step has up to 8 partitions of it for 2 slots."
    )
    assert first([load("roll", pieces=2)]).help == (
        "Faster sampling (a GPU) would help, and more nodes would not: a step has up to 2 partitions of it, and "
        "2 slots are there for them."
    )


def test_on_one_host_it_is_hosts_that_are_proposed() -> None:
    """Another daemon beside those that are there brings no cores."""
    (found,) = findings_of([load("own")], [], [], Setting(OPS, slots=2, hosts=1))
    assert found.help == "More hosts would help: a step has up to 8 partitions of it for 2 slots."


def test_without_knowing_slots_and_operator_nothing_is_proposed() -> None:
    """The figures do not tell."""
    (found,) = findings_of([load("own")], [], [], Setting())
    assert found.help == ""


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("learn", "A faster device or more nodes"),
        ("score", "A faster function or more nodes"),
        ("check", "Evaluating less often (`every`) or fewer entries or more nodes"),
        ("learn.apply", "fewer trained parameters (adapters) or a faster host would"),
        ("learn.reduce", "Fewer trained parameters (adapters) or more nodes would help"),
        ("save", "a higher `checkpoint.every`"),
    ],
)
def test_what_would_help_is_of_the_stage(name: str, said: str) -> None:
    """Each has its own remedy; that more nodes help an update would be untrue."""
    assert said in first([load(name)]).help


def test_nodes_that_differ_are_told_so() -> None:
    """That they are `alike` is a claim."""
    assert (
        ", the slowest on n1 (1.4 times the time of the fastest for a piece)."
        in first([load("roll", paces={"n0": 0.5, "n1": 0.7})]).what
    )
    assert first([load("roll", paces={})]).what.endswith("that have it).")


def test_a_slow_node_is_named_with_what_the_others_wait_for_it() -> None:
    """As it has the last task of the stage again and again."""
    slow = load("roll", paces={"n0": 0.5, "n1": 0.5, "n2": 1.15})
    found = findings_of([slow], [], [Tail("roll", "n2", 14.0, 10)], TWO)
    assert found[1].what == (
        "n2 takes 2.3 times as long as the others for a piece of `roll`: they wait 1.40 s a step for it."
    )
    assert found[1].help == "A faster host in place of n2 would help."
    assert found[1].share == pytest.approx(0.4)


def test_a_slow_node_that_nobody_waits_for_is_no_finding() -> None:
    """The others took its work: that is what stealing is for."""
    slow = load("roll", paces={"n0": 0.5, "n1": 0.5, "n2": 1.15})
    assert len(findings_of([slow], [], [Tail("roll", "n0", 0.4, 10)], TWO)) == 1


def test_pieces_that_do_not_divide_are_what_all_wait_for_in_turn() -> None:
    """No node is slower than another."""
    uneven = load("learn", piece="leaf", pieces=8, paces={"n0": 0.5, "n1": 0.5, "n2": 0.5})
    three = Setting(OPS, slots=3, hosts=3)
    found = findings_of([uneven], [], [Tail("learn", "n0", 3.0, 5), Tail("learn", "n1", 3.0, 5)], three)
    assert found[1].what == "At the end of `learn` the other nodes wait 0.60 s a step for its last task."
    assert found[1].help == "8 leaves do not divide evenly over 3 slots: more of them, or a multiple, would help."
    even = load("learn", piece="leaf", pieces=6, paces={})
    assert findings_of([even], [], [Tail("learn", "n0", 6.0, 10)], three)[1].help == ""


def test_waiting_can_be_the_bottleneck() -> None:
    """With its cause; short tasks are a reason only where the figures say that they are short."""
    short, long = load("roll", share=0.2, task_s=0.02), load("roll", share=0.2, task_s=2.0)
    found = first([short], [wait(Cause.BETWEEN, 0.5, times=1000)])
    assert found.what == "50 % of the time of the steps (1.75 s a step) is waiting: between tasks of one node."
    assert found.help == (
        "Fewer, larger `partitions` would help: the median task of `roll` takes 20 ms, and 18 ms pass between two "
        "tasks."
    )
    assert first([long], [wait(Cause.BETWEEN, 0.5, times=1000)]).help == ""
    brief = load("score", share=0.01, task_s=0.001)  # of the same call as `roll`
    assert first([long, brief], [wait(Cause.BETWEEN, 0.5, times=1000)]).help == ""


def test_what_moves_between_hosts_is_a_matter_of_their_network() -> None:
    """On one host there is none."""
    waits = [wait(Cause.GRADIENTS, 0.7)]
    assert "A faster network" in first([load("roll", share=0.2)], waits).help
    (found, *_) = findings_of([load("roll", share=0.2)], waits, [], Setting(OPS, 2, hosts=1))
    assert found.help == "The daemons share one host with their engines: larger steps would let it weigh less."


def test_start_up_is_no_part_of_a_step() -> None:
    """Nor is the night in which no daemon ran."""
    away = [Wait(Cause.STARTUP, 40.0, 1, 0.0, 0.0, False), Wait(Cause.DOWN, 9000.0, 1, 0.0, 0.0, False)]
    assert [finding.stage for finding in findings_of([load("roll")], away, [], TWO)] == ["roll"]


def test_where_no_step_is_known_nothing_is_claimed() -> None:
    """A run that has just begun."""
    assert findings_of([load("init", share=0.0)], [], [], TWO) == []
