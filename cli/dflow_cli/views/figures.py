"""A run's figures in the forms that other programs read: JSON lines, a CSV table, TensorBoard, Weights & Biases."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

from ..errors import EXIT_FAILED, CliError
from ..output import plain, print_json
from ..runs.outcome import Outcome

FORMS = ("jsonl", "csv")
LEADING = ("step", "reward_mean", "accuracy", "loss")  # the first columns of a table
Rows = Sequence[Mapping[str, Any]]


class Form(Protocol):
    def write(self, rows: Rows) -> None: ...


class Elsewhere(Form, Protocol):
    """A form that another program shows. `place`: where it is written; `how`: the command that shows it."""

    @property
    def place(self) -> str: ...
    @property
    def how(self) -> str: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: object) -> None: ...


def check_form(form: str, as_json: bool, follow: bool) -> None:
    """Raises CliError for a form that is not known, or that cannot be had in pieces."""
    if form not in FORMS:
        raise CliError(f"no form `{form}`", where="--format", hint=f"forms are {', '.join(FORMS)}")
    if form == "csv" and as_json:
        raise CliError("--json and --format csv are two forms", where="--format", hint="leave one of them out")
    if form == "csv" and follow:
        hint = "take `--format jsonl`, or leave --follow out"
        raise CliError("the columns of a table are known at the end only", where="--follow", hint=hint)


def flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row without nesting: `seconds` by stage become `seconds/STAGE`."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            found |= {f"{name}/{key}": item for key, item in value.items()}
        else:
            found[name] = value
    return found


def scalars(row: Mapping[str, Any]) -> dict[str, int | float]:
    """What can be drawn over the steps, by name."""
    return {
        name: value
        for name, value in flat(plain(row)).items()
        if name not in ("step", "time_s") and isinstance(value, int | float) and not isinstance(value, bool)
    }


class JsonForm:
    """One object a step, on stdout."""

    def write(self, rows: Rows) -> None:
        for row in rows:
            print_json(row)


class CsvForm:
    """A table on stdout, with a column for every figure that some step has; empty where a step has it not."""

    def write(self, rows: Rows) -> None:
        import csv

        table = [flat(plain(row)) for row in rows]
        names = {name for row in table for name in row}
        columns = [name for name in LEADING if name in names] + sorted(names - set(LEADING))
        writer = csv.DictWriter(sys.stdout, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)


class TensorBoardForm:
    """Scalars by their names, in `logs`/`run`: what was written there before is replaced. Use as a context manager."""

    def __init__(self, logs: Path, run: str) -> None:
        """Raises CliError where tensorboardX is not installed."""
        folder = logs / run
        self.place, self.how = str(folder), f"tensorboard --logdir {logs}"
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            hint = "pip install '.[tensorboard]' in the checkout; it needs no torch"
            raise CliError("tensorboardX is not installed", where="--tensorboard", hint=hint) from None
        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        self._writer = SummaryWriter(str(folder))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._writer.close()

    def write(self, rows: Rows) -> None:
        for row in rows:
            for name, value in scalars(row).items():
                self._writer.add_scalar(name, value, int(row["step"]), walltime=row.get("time_s"))
        self._writer.flush()


class WandbForm:
    """Scalars by their names, in a run of Weights & Biases that has this run's id: written a second time, steps that
    are there stay as they are. `WANDB_MODE=offline` writes to a folder. Use as a context manager."""

    def __init__(self, project: str, outcome: Outcome) -> None:
        """Raises CliError where wandb is not installed, or W&B does not take the run."""
        try:
            import wandb
        except ImportError:
            hint = "pip install '.[wandb]' in the checkout"
            raise CliError("wandb is not installed", where="--wandb", hint=hint) from None
        # of this process, which trains nothing, neither output nor packages nor load are anybody's figures
        quiet = wandb.Settings(
            silent=True, console="off", disable_git=True, x_disable_stats=True, x_save_requirements=False
        )
        name = f"{outcome.name} {outcome.run[:8]}"
        config = {"run": outcome.run, "pipeline": json.loads(outcome.spec or b"{}")}
        try:
            self._run = wandb.init(
                project=project, id=outcome.run, name=name, config=config, resume="allow", settings=quiet
            )
        except (wandb.Error, OSError) as error:
            hint = "`wandb login` once, or WANDB_MODE=offline to write to a folder and `wandb sync` it later"
            raise CliError(f"W&B: {error}", where="--wandb", hint=hint, exit_code=EXIT_FAILED) from error
        folder = str(Path(self._run.dir).parent)
        url = "" if self._run.offline else str(self._run.url)
        self.place, self.how = (
            url or folder,
            f"a browser at {url}" if url else f"`wandb sync {folder}`, then in a browser",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._run.finish()

    def write(self, rows: Rows) -> None:
        for row in rows:
            self._run.log(scalars(row), step=int(row["step"]))


def mesh_time(rows: Rows) -> str:
    """Everything of a step but compute: what the mesh itself costs. Empty where no step says."""
    times = sorted(1000.0 * float(row["mesh_s"]) for row in rows if row.get("mesh_s") is not None)
    if not times:
        return ""
    high = times[min(len(times) * 9 // 10, len(times) - 1)]
    return f"mesh time of a step: median {statistics.median(times):.0f} ms, p90 {high:.0f} ms, of {len(times)} steps"
