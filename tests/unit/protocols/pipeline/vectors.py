"""The format's conformance documents: pipelines with their canonical form and id, and such as must be refused.

Each lies in a file of its own. `python -m tests.unit.protocols.pipeline.vectors --rewrite` works out canonical forms
and ids anew; documents, and where a mistake is, are written by hand.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from dflow_protocols.pipeline import Pipeline
from tests.support.repository import ROOT

FOLDER = ROOT / "protocols" / "vectors" / "pipeline"
VALID = sorted((FOLDER / "valid").glob("*.json"))
INVALID = sorted((FOLDER / "invalid").glob("*.json"))


def told(path: Path) -> dict[str, Any]:
    """What a file says."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def spell(vector: dict[str, Any]) -> str:
    """The text of a file: one line for each key of its document, and for each stage."""
    lines = ["{"]
    for key, value in vector.items():
        if key == "document":
            lines += [' "document": {', ",\n".join(map(_line, value.items())), " },"]
        else:
            lines.append(f" {json.dumps(key)}: {_text(value)},")
    return "\n".join([*lines[:-1], lines[-1].removesuffix(","), "}"]) + "\n"


def _line(item: tuple[str, Any]) -> str:
    key, value = item
    if key == "stages" and value:
        return f'  "stages": [\n   {f",{chr(10)}   ".join(map(_text, value))}\n  ]'
    return f"  {json.dumps(key)}: {_text(value)}"


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def settled(vector: dict[str, Any]) -> dict[str, Any]:
    """A valid one with its canonical form, as text, and its id."""
    pipeline = Pipeline.from_dict(vector["document"])
    return vector | {"canonical": pipeline.canonical().decode(), "id": pipeline.id}


def main() -> None:
    if sys.argv[1:] != ["--rewrite"]:
        raise SystemExit("usage: python -m tests.unit.protocols.pipeline.vectors --rewrite")
    for path in VALID:
        path.write_text(spell(settled(told(path))), encoding="utf-8")


if __name__ == "__main__":
    main()
