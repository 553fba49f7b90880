"""The command line as a user types it, and folders with specs to type it about.

A command is run in this process, which spares half a second of a processor each time, unless it starts or ends daemons.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dflow_cli.app import main
from tests.support.repository import EXAMPLES, ROOT
from tests.support.strike import is_alive
from tests.support.until import until

PATIENCE_S = 280.0  # with a command, which is less than what a test has
SEES_S = 120.0  # until a task of some kind is seen
OF_DAEMONS = {"up", "down", "run", "resume"}  # commands whose processes daemons belong to
DFLOW = (sys.executable, "-m", "dflow_cli.app")


def dflow(*arguments: str | Path, code: int = 0, timeout_s: float = PATIENCE_S, of: str = "") -> str:
    """Standard output of a command that ends by `code`; standard error if that is not 0, or whichever `of` names.

    `timeout_s`: of a process.
    """
    words = [str(word) for word in arguments]
    ended, out, told = _as_process(words, timeout_s) if words[0] in OF_DAEMONS else _here(words)
    assert ended == code, f"dflow {' '.join(words)} ended by {ended}:\n{out}{told}"
    return out if (of or ("stdout" if code == 0 else "stderr")) == "stdout" else told


def _as_process(words: list[str], timeout_s: float) -> tuple[int, str, str]:
    done = subprocess.run([*DFLOW, *words], capture_output=True, text=True, timeout=timeout_s, check=False)
    return done.returncode, done.stdout, done.stderr


def _here(words: list[str]) -> tuple[int, str, str]:
    out, told = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(told):
        code = main(words)
    return code, out.getvalue(), told.getvalue()


def answer(*arguments: str | Path, timeout_s: float = PATIENCE_S) -> dict[str, Any]:
    """The object that a command prints with --json. `timeout_s`: as of dflow()."""
    value: dict[str, Any] = json.loads(dflow(*arguments, "--json", timeout_s=timeout_s).splitlines()[-1])
    return value


def example_folder(folder: Path) -> Path:
    """The examples and the specs of the tests side by side; the path of spell_backward.yaml there."""
    shutil.copytree(EXAMPLES, folder, dirs_exist_ok=True)
    shutil.copytree(ROOT / "tests" / "support" / "specs", folder, dirs_exist_ok=True)
    return folder / "spell_backward.yaml"


def run_on_one_and_two(spec: Path, *words: str | Path) -> list[dict[str, Any]]:
    """What `run` says of a spec, with these words, on one daemon and on two, in meshes `m1` and `m2` beside the spec:
    both ended, with the same weights."""
    told = [answer("run", spec, *words, "--nodes", str(n), "--dir", spec.parent / f"m{n}") for n in (1, 2)]
    assert [each["state"] for each in told] == ["done", "done"]
    assert told[0]["weights"] == told[1]["weights"]
    return told


def settings(values: Mapping[str, Any]) -> list[str]:
    """`--set` for each of them."""
    return [word for key, value in values.items() for word in ("--set", f"{key}={value}")]


def written(spec: dict[str, Any], folder: Path) -> Path:
    """A spec as a file (JSON is YAML), with the files that specs of emulated engines name."""
    (folder / "t").mkdir(parents=True, exist_ok=True)
    (folder / "t" / "tokenizer.json").write_text("{}")
    (folder / "c.json").write_text("{}")
    path = folder / "spec.yaml"
    path.write_text(json.dumps(spec))
    return path


def has_reached(folder: Path, step: int) -> bool:
    """Whether the newest run of the mesh in `folder` has made that version."""
    return bool(answer("ps", "--dir", folder)["runs"][0]["step"] >= step)


def kill_all(nodes: list[dict[str, Any]]) -> None:
    """SIGKILL to all daemons that `up` told of, until none of them is left."""
    for node in nodes:
        os.kill(node["pid"], signal.SIGKILL)
    until(lambda: not any(is_alive(node["pid"]) for node in nodes), SEES_S)


@contextlib.contextmanager
def killed_while_training(words: Sequence[Path | str], folder: Path) -> Iterator[dict[str, Any]]:
    """A mesh of three in `folder`, and what it says of a run of these specs, of whose daemons one was killed in the
    middle of step 3 of `learn`."""
    nodes = answer("up", "--nodes", "3", "--dir", folder)["nodes"]
    try:
        run = answer("submit", *words, "--dir", folder)["run"]

        def is_training() -> bool:
            tasks = answer("tasks", run, "--dir", folder)["tasks"]
            return any(task["stage"] == "learn" and task["step"] == 3 for task in tasks)

        until(is_training, SEES_S)
        os.kill(nodes[1]["pid"], signal.SIGKILL)
        yield answer("wait", run, "--dir", folder, "--timeout", "200")
    finally:
        dflow("down", "--dir", folder)
