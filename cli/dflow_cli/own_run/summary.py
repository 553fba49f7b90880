"""What a person reads when a run has ended."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

from ..folder import dir_option
from ..output import note, seconds
from ..runs.outcome import Outcome


def print_summary(outcome: Outcome) -> None:
    """The outcome in a few lines, on stdout."""
    daemons = f"{outcome.nodes} daemon{'' if outcome.nodes == 1 else 's'}"
    print(
        f"run {outcome.run} ({outcome.name}): {outcome.state}, step {outcome.step} of {outcome.steps}, "
        f"{seconds(outcome.wall_s)} on {daemons}"
    )
    if outcome.error:
        print(f"  error       {outcome.error}")
    elif outcome.remark and not outcome.is_final:
        print(f"  waits       {outcome.remark}")
    if outcome.skipped:
        parts = f"{outcome.skipped} partition{'' if outcome.skipped == 1 else 's'}"
        print(f"  skipped     {parts} that failed everywhere; `dflow logs` says why (task.skipped)")
    for stage, rows in outcome.evals_by_stage.items():
        first, last = rows[0], rows[-1]
        accuracy = f"{float(first['accuracy']):.3f} before (step {first['step']})"
        if last is not first:
            accuracy += f", {float(last['accuracy']):.3f} after (step {last['step']})"
        print(f"  accuracy    {accuracy}  ({stage or 'held out'})")
    if outcome.weights:
        print(f"  weights     {outcome.weights}")
    for name, path in sorted(outcome.checkpoint.items()):
        print(f"  checkpoint  {path}  ({name})")


def print_stopped(outcome: Outcome, folder: Path) -> None:
    """How a run that was stopped, or has failed, goes on."""
    saved = outcome.saved or 0
    how = f"{outcome.state} at step {outcome.step}"
    again = f"dflow resume {outcome.run[:8]}{dir_option(folder)}"
    if outcome.step > saved:
        why = outcome.problems[0]["what"] if outcome.problems else f"see `dflow logs {outcome.run[:8]}`"
        note(f"{how}, which could not be saved: {why}")
    if not saved:
        note(f"{how}: nothing of it can go on" if outcome.step else f"{how}: it got nowhere, and nothing of it is kept")
    elif outcome.state == "failed":
        note(f"{how}; {again} goes on at step {saved} once the cause is mended")
    else:
        note(f"{how if outcome.step == saved else f'saved at step {saved}'}; {again} goes on")


def print_next(outcome: Outcome, folder: Path, plot: Path | None) -> None:
    """After a run of a mesh of its own: where its results lie and what to type next."""
    if plot is not None:
        print(f"  plot        {plot}")
    place = dir_option(folder)
    run = outcome.run[:8]
    proposals = [
        (f"dflow samples {run}{place}", "what it answers now"),
        (f"dflow report {run}{place}", "all of it on one page, and what it waited for most"),
        (f"dflow metrics {run}{place}", "every figure of every step"),
        (f"dflow up --nodes 3{place}", "a mesh that stays, for `dflow submit SPEC`"),
    ]
    if (scripts := _unfound_scripts()) is not None:
        proposals.insert(0, (f"source {shlex.quote(str(scripts / 'activate'))}", "so that this shell finds `dflow`"))
    width = max(len(command) for command, _ in proposals)
    note("next:")
    for command, about in proposals:
        note(f"  {command:<{width}}  {about}")
    for path in outcome.checkpoint.values():
        note(f"  in Python: transformers.AutoModelForCausalLM.from_pretrained({path!r})")


def _unfound_scripts() -> Path | None:
    """The folder of this virtual environment's commands where the shell would not find them, as under `make demo`."""
    scripts = Path(sys.prefix) / "bin"
    if shutil.which("dflow") is not None or not (scripts / "activate").is_file():
        return None
    return Path(os.path.relpath(scripts)) if scripts.is_relative_to(Path.cwd()) else scripts
