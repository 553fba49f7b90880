"""The command line as a user types it, and folders with specs to type it about."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DFLOW = (sys.executable, "-m", "dflow_cli.app")


def dflow(*arguments: str | Path, code: int = 0, timeout_s: float = 280.0, of: str = "") -> str:
    """Standard output of a command that ends by `code`; standard error if that is not 0, or whichever `of` names."""
    words = [*DFLOW, *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=timeout_s, check=False)
    said = f"dflow {' '.join(words[3:])} ended by {done.returncode}:\n{done.stdout}{done.stderr}"
    assert done.returncode == code, said
    return done.stdout if (of or ("stdout" if code == 0 else "stderr")) == "stdout" else done.stderr


def answer(*arguments: str | Path) -> dict[str, Any]:
    """The object that a command prints with --json."""
    value: dict[str, Any] = json.loads(dflow(*arguments, "--json").splitlines()[-1])
    return value


def example_folder(folder: Path) -> Path:
    """The examples and the specs of the tests side by side; the path of spell_backward.yaml there."""
    shutil.copytree(ROOT / "examples", folder, dirs_exist_ok=True)
    shutil.copytree(ROOT / "tests" / "support" / "specs", folder, dirs_exist_ok=True)
    return folder / "spell_backward.yaml"


def written(spec: dict[str, Any], folder: Path) -> Path:
    """A spec as a file (JSON is YAML), with the files that specs of emulated engines name."""
    (folder / "t").mkdir(parents=True, exist_ok=True)
    (folder / "t" / "tokenizer.json").write_text("{}")
    (folder / "c.json").write_text("{}")
    path = folder / "spec.yaml"
    path.write_text(json.dumps(spec))
    return path
