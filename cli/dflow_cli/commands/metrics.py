"""dflow metrics."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ..options import DEFAULT_FOLDER, Folder, Run, To


def metrics(
    run: Run,
    since: Annotated[int, typer.Option("--since", min=0, metavar="STEP", help="From this step on.")] = 0,
    folder: Folder = DEFAULT_FOLDER,
    to: To = "",
    as_json: Annotated[bool, typer.Option("--json", help="What it prints anyway.")] = False,
) -> None:
    """Print a run's figures, one JSON object a step; on stderr what a step costs beside compute.

    Steps of a branch that lost after a split are told too, with `abandoned` set.

    Example: dflow metrics 3f9c | jq .reward_mean
    """
    from ..output import note, note_missing, print_json
    from ..results import look_back

    with look_back(Path(folder).absolute(), to, run) as source:
        answer = source.call("metrics", {"run": run, "since_step": since})
    for row in sorted([*answer["rows"], *answer.get("abandoned", ())], key=lambda row: int(row["step"])):
        print_json(row)
    if text := _mesh_time(answer["rows"]):
        note(text)
    note_missing(answer)


def _mesh_time(rows: Sequence[Mapping[str, Any]]) -> str:
    """Everything of a step but compute: what the mesh itself costs."""
    times = sorted(1000.0 * float(row["mesh_s"]) for row in rows if row.get("mesh_s") is not None)
    if not times:
        return ""
    high = times[min(len(times) * 9 // 10, len(times) - 1)]
    return f"mesh time of a step: median {statistics.median(times):.0f} ms, p90 {high:.0f} ms, of {len(times)} steps"
