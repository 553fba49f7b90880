"""dflow samples."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ..folder import DEFAULT_FOLDER
from ..options import AsJson, Folder, Run, To


def samples(
    run: Run,
    limit: Annotated[int, typer.Option("--limit", min=1, metavar="N", help="The newest N.")] = 16,
    step: Annotated[int | None, typer.Option("--step", min=0, metavar="STEP", help="Of this step only.")] = None,
    folder: Folder = DEFAULT_FOLDER,
    to: To = "",
    as_json: AsJson = False,
) -> None:
    """Show some prompts, what the model said, the right answer and the reward; of a conversation all turns.

    Line breaks and other characters that a terminal does not show are written as in Python, such as `\\n`.

    Example: dflow samples 3f9c --step 40
    """
    from ..kept.asking import ask
    from ..output import note, note_missing, print_json, print_table

    with ask(Path(folder).absolute(), to) as source:
        answer = source.call("samples", {"run": run, "limit": limit} | ({} if step is None else {"step": step}))
    if as_json:
        print_json(answer)
        return
    stages = list(dict.fromkeys(stage for sample in answer["samples"] for stage in sample.get("rewards") or {}))
    texts = ("prompt", "completion", "answer")
    rows = [
        [
            sample["step"],
            *(None if sample.get(name) is None else _shown(name, sample) for name in texts),
            sample.get("reward"),
            *map((sample.get("rewards") or {}).get, stages),
        ]
        for sample in answer["samples"]
    ]
    print_table(["step", *texts, "reward", *stages], rows)
    if not rows:
        note("no sample is kept" + ("" if step is None else f" of step {step}"))
    note_missing(answer)


def _shown(name: str, sample: Mapping[str, Any]) -> str:
    """A text of a sample; a line for each message where the completion is a conversation."""
    from ..output import escaped

    if name == "completion" and sample.get("turns"):
        return "\n".join(f"{each.get('role')}: {escaped(str(each.get('content')))}" for each in sample["turns"])
    return escaped(str(sample[name]))
