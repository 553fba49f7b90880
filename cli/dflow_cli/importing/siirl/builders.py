"""Python files that build siiRL pipelines: each is run in a process of its own, beside a stand-in for siiRL."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from ...errors import CliError
from .workflow import Node, Workflow, make_workflow

LONGEST_S = 60.0  # of a file that builds graphs: it computes nothing


def build_workflows(path: Path, function: str = "") -> list[Workflow]:
    """The pipelines of a file: that of one function, or of all that build one. Raises CliError."""
    told = _run(path, function)
    if "mistake" in told:
        place = f"{path}:{told['line']}" if told["line"] else str(path)
        names = ", ".join(told.get("functions", ()))
        hint = f"it builds pipelines by {names}" if names else "the file is run as Python; correct it there"
        raise CliError(told["mistake"], where=place, hint=hint)
    if not told["pipelines"]:
        what = "no function of it builds a siiRL pipeline"
        hint = "a builder takes no arguments, is said to return a TaskGraph or uses Pipeline; name one by FILE:FUNCTION"
        raise CliError(what, where=str(path), hint=hint)
    files = {path.stem: path.name}
    return [
        make_workflow(each["name"], [Node.of(node) for node in each["nodes"]], f"{path}:{each['function']}", files)
        for each in told["pipelines"]
    ]


def _run(path: Path, function: str) -> dict[str, Any]:
    command = [sys.executable, "-P", "-m", "dflow_cli.importing.siirl.standin", str(path.absolute()), function]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LONGEST_S,
            check=False,
            cwd=path.absolute().parent,
        )
        told: dict[str, Any] = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        hint = "a file that builds pipelines computes nothing; name its builder by FILE:FUNCTION"
        raise CliError(f"it did not end within {LONGEST_S:.0f} s", where=str(path), hint=hint) from None
    except ValueError:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        hint = "the file is run as Python; correct it there"
        raise CliError(f"its process ended: {last}", where=str(path), hint=hint) from None
    return told
