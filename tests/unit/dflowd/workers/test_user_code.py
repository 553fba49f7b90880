"""A user's function: found beside the spec, called by its signature, blamed by its line."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from dflowd.jobs.failures import UserError
from dflowd.operators.reward import exact_match
from dflowd.workers.user_code import call_user, forget_user_code, load_function


def test_a_file_and_a_module_beside_the_spec_are_found(tmp_path: Path) -> None:
    """The spec's folder is on the path, so a reward may import its neighbours."""
    (tmp_path / "weights_of_mine.py").write_text("HALF = 0.5\n")
    (tmp_path / "rewards_of_mine.py").write_text("from weights_of_mine import HALF\ndef half(*a, **k): return HALF\n")
    assert load_function("rewards_of_mine.py:half", tmp_path)() == 0.5
    assert load_function("rewards_of_mine:half", tmp_path)() == 0.5


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("nowhere.py:half", "no file"),
        ("no_such_module:half", "No module named"),
        ("math:half", "no function `half`"),
        ("broken.py:half", r"SyntaxError.*broken\.py|broken\.py:half: SyntaxError"),
    ],
)
def test_what_cannot_be_loaded_is_named(tmp_path: Path, name: str, error: str) -> None:
    """Before anything runs for nothing."""
    (tmp_path / "broken.py").write_text("def half(:\n")
    with pytest.raises(UserError, match=error):
        load_function(name, tmp_path)


def test_an_exception_names_the_line_of_the_user(tmp_path: Path) -> None:
    """One line: what, and where in the user's own file."""
    (tmp_path / "sharp.py").write_text("def cut(text):\n    return text[99]\n")
    with pytest.raises(UserError) as caught:
        call_user(load_function("sharp.py:cut", tmp_path), "abc")
    assert str(caught.value) == "IndexError: string index out of range (sharp.py:2)"


@pytest.mark.parametrize(
    ("completion", "reward"), [("kralC", 1.0), ("kralc", 1.0), (" kralc\n", 1.0), ("kralcs", 0.0), ("", 0.0)]
)
def test_exact_match_is_all_or_nothing(completion: str, reward: float) -> None:
    """Parts of a point for parts of the answer can be had without ever stopping."""
    assert exact_match(completion, "kralC", prompt="", entry={}) == reward


def test_an_edited_file_is_another_runs_code(tmp_path: Path) -> None:
    """A mesh stays up while its user tries one reward after the other, in one folder."""
    base = tmp_path / "mine"
    base.mkdir()
    (base / "part_of_mine.py").write_text("VALUE = 1\n")
    (base / "judge_of_mine.py").write_text("import part_of_mine\ndef score(): return part_of_mine.VALUE\n")
    assert load_function("judge_of_mine.py:score", base)() == 1
    assert load_function("judge_of_mine:score", base)() == 1
    (base / "part_of_mine.py").write_text("VALUE = 2\n")
    forget_user_code()
    assert load_function("judge_of_mine.py:score", base)() == 2
    assert load_function("judge_of_mine:score", base)() == 2
    assert not list(tmp_path.rglob("__pycache__"))


def test_two_folders_may_have_modules_of_one_name(tmp_path: Path) -> None:
    """Every starter's reward is called `rewards`."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rewards_alike.py").write_text(f"def which(): return {name!r}\n")
    assert [load_function("rewards_alike:which", tmp_path / name)() for name in ("one", "two", "one")] == [
        "one",
        "two",
        "one",
    ]


def test_what_is_installed_stays_loaded(tmp_path: Path) -> None:
    """A spec may lie beside an environment: forgetting torch with it would end the engine."""
    site = tmp_path / "env" / "site-packages"
    site.mkdir(parents=True)
    (site / "installed_of_mine.py").write_text("")
    (tmp_path / "uses_it.py").write_text("import installed_of_mine\ndef score(): return 1\n")
    sys.path.append(str(site))
    try:
        load_function("uses_it:score", tmp_path)
        forget_user_code()
        assert "installed_of_mine" in sys.modules
        assert "uses_it" not in sys.modules
    finally:
        sys.path.remove(str(site))


def test_an_import_inside_the_function_works(tmp_path: Path) -> None:
    """Heavy libraries are often imported where they are first used."""
    (tmp_path / "late_part.py").write_text("VALUE = 3\n")
    (tmp_path / "late_judge.py").write_text("def score():\n    import late_part\n    return late_part.VALUE\n")
    assert load_function("late_judge.py:score", tmp_path)() == 3


def test_an_error_inside_a_library_names_the_users_line(tmp_path: Path) -> None:
    """Where json raised says nothing; who called it does."""
    (tmp_path / "parsing.py").write_text("import json\ndef score(text):\n    return json.loads(text)\n")
    with pytest.raises(UserError, match=r"^JSONDecodeError: .* \(parsing\.py:3\)$"):
        call_user(load_function("parsing.py:score", tmp_path), "no json")


POOL = """
import multiprocessing

def one(value):
    return value + 1

def score(values):
    with multiprocessing.get_context({start!r}).Pool(1) as pool:
        return pool.map(one, values)
"""


@pytest.mark.parametrize(
    ("start", "file", "name"),
    [
        ("spawn", "pooled.py", "pooled.py:score"),
        ("forkserver", "pooled.py", "pooled:score"),
        ("fork", "pooled.py", "pooled.py:score"),
        ("spawn", "part/pooled.py", "part/pooled.py:score"),
        ("spawn", "random.py", "random.py:score"),
        ("forkserver", "numpy.py", "numpy:score"),
    ],
)
def test_a_pool_that_user_code_starts_can_import_it(tmp_path: Path, start: str, file: str, name: str) -> None:
    """Scoring on all cores is the first thing that a slow reward is given; its workers import the function by name."""
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(POOL.format(start=start))
    assert load_function(name, tmp_path)([1, 2]) == [2, 3]
    assert not list(tmp_path.rglob("__pycache__"))
    forget_user_code()


@pytest.mark.parametrize("module", ["random", "types", "queue", "numpy"])
def test_a_file_named_like_a_library_is_the_users_and_leaves_the_library_alone(tmp_path: Path, module: str) -> None:
    """Who calls a reward `types.py` means that file, and everybody else Python's."""
    (tmp_path / f"{module}.py").write_text("from queue import Queue\nimport types\ndef which(): return types, Queue\n")
    found, queue = load_function(f"{module}.py:which", tmp_path)()
    assert hasattr(found, "SimpleNamespace")
    assert queue.__module__ == "queue"
    assert load_function(f"{module}:which", tmp_path)()[0] is found
    forget_user_code()
    assert not [name for name in sys.modules if name.startswith("dflowd.workers.beside.")]


def test_packages_of_a_pipeline_work_from_within_and_without(tmp_path: Path) -> None:
    """A task with many rewards grows into a package: its modules import each other both ways, and are the same ones."""
    for name, text in (
        ("judges/__init__.py", "from .strict import score as strict\n"),
        ("judges/strict.py", "from . import marks\nimport judges.marks\ndef score(): return marks is judges.marks\n"),
        ("judges/marks.py", ""),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert load_function("judges:strict", tmp_path)()
    assert load_function("judges/strict.py:score", tmp_path)()


@pytest.mark.parametrize("said", ["SystemExit(3)", "KeyboardInterrupt()", "BaseException('odd')"])
def test_whatever_user_code_raises_is_the_users_error(tmp_path: Path, said: str) -> None:
    """`sys.exit()` in a reward must not end the engine, and be taken for a crash that another host would not have."""
    (tmp_path / "raiser.py").write_text(f"def score():\n    raise {said}\n")
    (tmp_path / "early.py").write_text(f"raise {said}\n")
    with pytest.raises(UserError, match=rf"^{said.partition('(')[0]}: .*\(raiser\.py:2\)$"):
        call_user(load_function("raiser.py:score", tmp_path))
    with pytest.raises(UserError, match=r"\(early\.py:1\)$"):
        load_function("early.py:score", tmp_path)


def test_what_user_code_does_to_its_process_is_undone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One engine works for many runs: another one's folder or closed output must not be theirs."""
    (tmp_path / "rude.py").write_text(
        "import os, sys\n"
        "def score(place):\n"
        "    os.chdir(place)\n"
        "    sys.stdout = open(os.devnull, 'w')\n"
        "    return os.fork() or 0\n"  # both come back
    )
    before = os.getcwd(), sys.stdout
    child = call_user(load_function("rude.py:score", tmp_path), tmp_path)
    assert os.waitpid(child, 0)[1] == 0
    assert (os.getcwd(), sys.stdout) == before
    print("still heard")
    assert capsys.readouterr().out == "still heard\n"
