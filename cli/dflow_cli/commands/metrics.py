"""dflow metrics."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import CliError
from ..folder import DEFAULT_FOLDER
from ..options import Folder, Run, To

if TYPE_CHECKING:
    from ..runs.outcome import Outcome
    from ..views.figures import Elsewhere, Form

LOOK_S = 2.0  # between two looks of --follow


def metrics(
    run: Run,
    since: Annotated[int, typer.Option("--since", min=0, metavar="STEP", help="From this step on.")] = 0,
    form: Annotated[str, typer.Option("--format", metavar="FORM", help="jsonl or csv.")] = "jsonl",
    tensorboard: Annotated[
        Path | None,
        typer.Option("--tensorboard", metavar="DIR", help="Write events for TensorBoard to DIR/RUN instead."),
    ] = None,
    wandb: Annotated[
        str, typer.Option("--wandb", metavar="PROJECT", help="Write to this project of Weights & Biases instead.")
    ] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends.")] = False,
    folder: Folder = DEFAULT_FOLDER,
    to: To = "",
    as_json: Annotated[bool, typer.Option("--json", help="What it prints anyway.")] = False,
) -> None:
    """Print a run's figures, one JSON object or table row a step. On stderr what a step costs beside compute.

    Steps of a branch that lost after a split are told too, with `abandoned` set; other programs get those that stand.

    Example: dflow metrics 3f9c --format csv > run.csv
    """
    from ..kept.asking import ask
    from ..kept.source import all_rows
    from ..output import note, note_missing
    from ..runs.outcome import read_outcome
    from ..views.figures import CsvForm, JsonForm, check_form, mesh_time

    check_form(form, as_json, follow)
    if tensorboard is not None and wandb:
        raise CliError("--tensorboard and --wandb are two places", where="--wandb", hint="leave one of them out")
    with ask(Path(folder).absolute(), to) as source, ExitStack() as closing:
        outcome = read_outcome(source.call("run", {"run": run}))
        elsewhere = _elsewhere(outcome, tensorboard, wandb)
        sink: Form = CsvForm() if form == "csv" else JsonForm()
        if elsewhere is not None:
            sink = closing.enter_context(elsewhere)
        while True:
            is_over = not follow or read_outcome(source.call("run", {"run": run})).is_final
            answer = source.call("metrics", {"run": run, "since_step": since})
            if answer.pop("cut", False):
                answer["rows"] = all_rows(source, "metrics", "rows", {"run": run, "since_step": since})
            rows = _rows(answer, is_over, elsewhere is None)
            sink.write(rows)
            since = max((int(row["step"]) + 1 for row in rows), default=since)
            if is_over:
                break
            time.sleep(LOOK_S)
        if elsewhere is not None:
            print(elsewhere.place)
            note(f"see it with: {elsewhere.how}")
        elif text := mesh_time(all_rows(source, "metrics", "rows", {"run": run}) if follow else answer["rows"]):
            note(text)
        note_missing(answer)


def _elsewhere(outcome: Outcome, tensorboard: Path | None, project: str) -> Elsewhere | None:
    from ..views.figures import TensorBoardForm, WandbForm

    if tensorboard is not None:
        return TensorBoardForm(tensorboard, outcome.run[:8])
    return WandbForm(project, outcome) if project else None


def _rows(answer: Mapping[str, Any], is_over: bool, with_abandoned: bool) -> Sequence[Mapping[str, Any]]:
    """The rows to write now: while the run goes on those that no node will add times to, all but the newest."""
    if not is_over:
        return list(answer["rows"][:-1])
    abandoned = answer.get("abandoned", ()) if with_abandoned else ()
    return sorted([*answer["rows"], *abandoned], key=lambda row: int(row["step"]))
