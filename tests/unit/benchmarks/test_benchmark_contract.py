"""`python -m benchmarks`: what a script may rely on. Nothing is measured here but pretended benchmarks."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest

from benchmarks import __main__ as program
from benchmarks import registry
from benchmarks.figure import Figure, Goal, Skipped, Tell, table
from benchmarks.registry import BENCHMARKS, Benchmark, load, options_of, question

KEYS = ["figure", "unit", "ours", "anchor", "anchor_value", "ratio", "goal", "holds"]


def pretended(
    tell: Tell,
    *,
    steps: Annotated[int, "of a run"] = 6,
    nodes: Annotated[tuple[int, ...], "sizes"] = (2, 3),
    is_missing: Annotated[bool, "whether something lacks here"] = False,
) -> list[Figure]:
    if is_missing:
        raise Skipped("needs a GPU")
    tell({"seen": steps})
    return [Figure("a step", "s", 2.0 * steps, "a loop", 10.0, Goal(1.15)), Figure("rows", "rows", sum(nodes))]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    """The lines that a command line of the pretended benchmark prints."""
    made = Benchmark("pretended", "Does it?", pretended, tuple(options_of(pretended)), {"steps": 1})
    monkeypatch.setattr(program, "BENCHMARKS", ("pretended",))
    monkeypatch.setattr(program, "load", lambda name: made)

    def lines(*words: str) -> list[str]:
        program.main(["pretended", *words])
        return capsys.readouterr().out.splitlines()

    return lines


def test_the_last_line_for_a_script_has_name_settings_and_figures(run: Callable[..., list[str]]) -> None:
    """What was seen on the way comes before it, as JSON too."""
    *rows, last = map(json.loads, run("--json", "--nodes", "4", "5"))
    assert {"seen": 6} in rows
    assert list(last) == ["name", "settings", "figures"]
    assert last["settings"] == {"steps": 6, "nodes": [4, 5], "is_missing": False}
    assert [list(figure) for figure in last["figures"]] == [KEYS, KEYS]
    step, count = last["figures"]
    assert (step["ours"], step["anchor_value"], step["ratio"]) == (12.0, 10.0, 1.2)
    assert (step["goal"], step["holds"]) == (1.15, False)
    assert (count["anchor"], count["ratio"], count["goal"], count["holds"]) == (None, None, None, True)


def test_the_short_form_yields_to_what_is_said(run: Callable[..., list[str]]) -> None:
    """--quick only replaces defaults."""
    assert json.loads(run("--json", "--quick")[-1])["settings"]["steps"] == 1
    assert json.loads(run("--json", "--quick", "--steps", "3")[-1])["settings"]["steps"] == 3


def test_what_cannot_run_here_says_why_and_is_no_failure(run: Callable[..., list[str]]) -> None:
    """A script that runs them all goes on."""
    said = json.loads(run("--json", "--is-missing")[-1])
    assert said == {"name": "pretended", "skipped": "needs a GPU", "figures": []}


def test_who_is_terminated_cleans_up_and_takes_no_second_signal_meanwhile(
    monkeypatch: pytest.MonkeyPatch, run: Callable[..., list[str]]
) -> None:
    """A scheduler or `timeout` ends it so, the latter twice; its daemons and engines would hold on to devices."""
    ended: list[str] = []
    taken: list[int] = []

    def terminated(tell: Tell) -> list[Figure]:
        with ExitStack() as mesh:
            mesh.callback(ended.append, "mesh")
            mesh.callback(signal.raise_signal, signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
        return []

    monkeypatch.setattr(program, "load", lambda name: Benchmark("pretended", "Does it?", terminated, (), {}))
    before = signal.signal(signal.SIGTERM, lambda number, frame: taken.append(number))
    try:
        with pytest.raises(SystemExit) as left:
            run()
        assert ended == ["mesh"]
        signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert left.value.code == 128 + signal.SIGTERM
    assert taken == [signal.SIGTERM]  # the last one, as ever


def test_people_get_a_table(run: Callable[..., list[str]]) -> None:
    """With the goal and whether it is kept."""
    said = "\n".join(run())
    assert "<= 1.15" in said
    assert "NO" in said


def test_what_numpy_counted_is_told_as_any_number() -> None:
    """A mean of an array is no number that JSON knows, and no more is what comes of comparing it with a goal."""
    row = Figure("f", "s", np.float64(3.0), "a", np.float64(2.0), Goal(2.0)).row()
    assert json.loads(json.dumps(row)) == row
    assert (row["ours"], row["anchor_value"], row["ratio"], row["holds"]) == (3.0, 2.0, 1.5, True)


@pytest.mark.parametrize(
    ("figure", "holds"),
    [
        (Figure("f", "s", 1.0, "a", 2.0, Goal(0.5)), True),
        (Figure("f", "s", 1.0, "a", 2.0, Goal(0.6, is_least=True)), False),
        (Figure("f", "s", 3.0, goal=Goal(3.0)), True),
        (Figure("f", "s", 3.0, goal=Goal(4.0, is_least=True)), False),
        (Figure("f", "s", 3.0, "a", 0.0, Goal(9.0)), False),
        (Figure("f", "s", 3.0, "a", 0.0), True),
    ],
)
def test_a_goal_bounds_the_ratio_or_the_figure_where_nothing_is_compared(figure: Figure, holds: bool) -> None:
    """And every row is JSON that any reader takes."""
    assert figure.row()["holds"] is holds
    json.dumps(figure.row(), allow_nan=False)
    assert table([figure])


def test_the_list_names_every_benchmark_of_the_folder(capsys: pytest.CaptureFixture[str]) -> None:
    """A new one that is not registered would never be run."""
    program.main(["--list", "--json"])
    assert json.loads(capsys.readouterr().out) == {"benchmarks": list(BENCHMARKS)}
    folder = Path(registry.__file__).parent
    files = [path for path in folder.rglob("*.py") if "\ndef measure(" in path.read_text()]
    names = [path.relative_to(folder).with_suffix("").as_posix().removesuffix("/__init__") for path in files]
    assert sorted(names) == sorted(BENCHMARKS)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_says_what_it_asks_and_what_its_settings_mean(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--help` is its only manual."""
    assert question(name).endswith(("?", "."))
    loaded = load(name)
    assert all(option.meaning for option in loaded.options)
    assert set(loaded.quick) <= {option.name for option in loaded.options}
    with pytest.raises(SystemExit) as ended:
        program.main([name, "--help"])
    assert ended.value.code == 0
    assert question(name) in capsys.readouterr().out.replace("\n", " ")


@pytest.mark.parametrize(("words", "hint"), [(["slot"], "slots"), (["fetch"], "micro/fetch"), ([], "--list")])
def test_a_wrong_name_is_answered_with_the_nearest(
    words: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, as for every wrong input."""
    with pytest.raises(SystemExit) as ended:
        program.main(words)
    assert ended.value.code == 2
    said: Any = capsys.readouterr()
    assert hint in said.err + said.out
