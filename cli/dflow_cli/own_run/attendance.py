"""A command that stays with a run: shows it, stops it at Ctrl-C where it is, and brings its results home."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import EXIT_INTERRUPTED, EXIT_NO_DAEMON, CliError
from ..folder import dir_option
from ..kept.ended import going_on
from ..mesh.client import Client
from ..mesh.localmesh import running
from ..output import note, print_json
from ..runs.follow import await_end, follow
from ..runs.outcome import Outcome, read_outcome
from ..views.progress import progress
from .interrupts import Interrupts
from .results import bring_home, draw_at_home
from .summary import print_next, print_stopped, print_summary

CANCEL_S = 10.0  # for the daemons to stop the tasks of a cancelled run
LOOK_S = 0.1  # between two looks at a run that is being saved
SILENT_S = 1.0  # of that, before it is told
HURRY = "bringing its results home; Ctrl-C again ends without them"


@dataclass(slots=True)
class Attendance:
    """`discard`: of a run that is interrupted nothing is kept. `run`: once there is one. `stays`: the mesh does, and so
    do runs on it, when the command has ended."""

    folder: Path
    as_json: bool
    discard: bool
    interrupts: Interrupts
    run: str = ""
    stays: bool = True

    def enter(self, stays: bool) -> None:
        """There is a mesh."""
        self.stays = stays

    def follow(self, run: str) -> None:
        """This is the run from now on."""
        self.run = run

    def to_end(self, client: Client) -> int:
        """Show the run until it ends; the exit code. Raises CliError, and KeyboardInterrupt at a second Ctrl-C."""
        try:
            outcome = self._watch(client)
            if outcome.state == "failed" and not self.stays:
                outcome = settled(client, self.run)  # as the daemons are about to go
            code = outcome.exit_code
        except KeyboardInterrupt:
            outcome, code = self._interrupted(client), EXIT_INTERRUPTED
        plot, home = None, None
        if not self.stays and not (self.discard and code == EXIT_INTERRUPTED):
            with self.interrupts.finishing(HURRY):
                home = bring_home(client, self.folder, outcome)
            if home is not None and home.step:
                # An interrupt meanwhile came too late to end anything but this.
                with suppress(KeyboardInterrupt), self.interrupts.shielded():
                    plot = draw_at_home(self.folder, self.run)
        self._tell(home or outcome, home is not None, plot)
        return code

    def _watch(self, client: Client) -> Outcome:
        try:
            with progress() as view:
                return follow(client, self.folder, self.run, view).outcome
        except OSError:
            if not self.interrupts.count:  # what it was to be shown on closed, and said so
                raise
            raise KeyboardInterrupt from None
        except CliError as problem:
            if problem.exit_code != EXIT_NO_DAEMON or running(self.folder) is not None:
                raise
            what = f"the daemons of run {self.run[:8]} have ended before it has"
            raise CliError(what, hint=going_on(self.folder, self.run), exit_code=EXIT_NO_DAEMON) from None

    def _interrupted(self, client: Client) -> Outcome:
        if self.stays:
            watch, cancel = (f"dflow {verb} {self.run[:8]}{dir_option(self.folder)}" for verb in ("watch", "cancel"))
            note(f"the run goes on without this command; `{watch}` shows it, `{cancel}` ends it")
            return read_outcome(client.call("run", {"run": self.run}))
        if self.discard:
            note("discarding the run")
            client.call("cancel", {"run": self.run}, deadline_s=20.0)
            return await_end(client, self.run, CANCEL_S)
        return stop_where_it_is(client, self.run)

    def _tell(self, outcome: Outcome, is_home: bool, plot: Path | None) -> None:
        """Before the daemons are stopped, which may have to wait for another run."""
        if self.as_json:
            print_json(outcome.to_json() | ({"plot": str(plot)} if plot else {}))
        else:
            print_summary(outcome)
            if is_home and outcome.step:
                print_next(outcome, self.folder, plot)
        if outcome.state in ("stopped", "failed") and not self.stays:
            print_stopped(outcome, self.folder)


def stop_where_it_is(client: Client, run: str) -> Outcome:
    """Once who holds the newest version has saved it, as far as that can be done. Raises CliError."""
    client.call("stop", {"run": run}, deadline_s=20.0)
    return settled(client, run)


def settled(client: Client, run: str) -> Outcome:
    """How a run that is over stands once its newest version is saved, as far as that can be done. Raises CliError."""
    began, is_told = time.monotonic(), False
    while True:
        value = client.call("run", {"run": run})
        if value.get("settled"):
            return read_outcome(value)
        if not is_told and time.monotonic() > began + SILENT_S:
            note(f"saving step {value['step']}; Ctrl-C again ends at once, without it")
            is_told = True
        time.sleep(LOOK_S)
