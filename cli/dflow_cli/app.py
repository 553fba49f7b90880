"""The command line `dflow`: assembles the commands, and turns every mistake into two lines and an exit code.

Nothing heavy is imported here or at the top of a command: `dflow --help` must answer at once.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from . import streams
from .commands.cancel import cancel
from .commands.doctor import doctor
from .commands.down import down
from .commands.drain import drain
from .commands.export import export
from .commands.importing import importing
from .commands.init import init
from .commands.keys import keys
from .commands.logs import logs
from .commands.metrics import metrics
from .commands.nodes import nodes
from .commands.plan import plan
from .commands.plot import plot
from .commands.ps import ps
from .commands.push import push
from .commands.report import report
from .commands.resume import resume
from .commands.run import run
from .commands.samples import samples
from .commands.schema import schema
from .commands.shards import shards
from .commands.sim import sim
from .commands.story import story
from .commands.submit import submit
from .commands.tasks import tasks
from .commands.up import up
from .commands.validate import validate
from .commands.version import tell_version, version
from .commands.wait import wait
from .commands.watch import watch
from .errors import EXIT_INTERRUPTED, CliError, explain
from .group import HELP_NAMES, Command, CommandGroup

app = typer.Typer(
    name="dflow",
    help="Train language models by reinforcement learning on a mesh of daemons that needs no head node.",
    cls=CommandGroup,
    context_settings=HELP_NAMES,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
SECTIONS = {
    "Start": (init, validate, plan, schema, push, run, submit, wait, resume, cancel),
    "Look": (ps, watch, tasks, story, logs, shards),
    "Results": (metrics, samples, plot, report, export),
    "Hosts": (up, down, nodes, drain, doctor, sim, version),
}
for _section, _commands in SECTIONS.items():
    for _command in _commands:
        app.command(cls=Command, rich_help_panel=_section)(_command)
app.add_typer(importing, rich_help_panel="Start")
app.add_typer(keys, rich_help_panel="Hosts")


@app.callback()
def dflow(
    is_version_asked: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=tell_version, help="Print the versions and exit.")
    ] = False,
) -> None:
    """What `dflow` takes before a command."""


_UsageError: type[Exception] = typer.BadParameter.__mro__[1]  # typer keeps its base class under a private name


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    streams.fill()
    try:
        code = _run(arguments)
        streams.finish()
    except BrokenPipeError:  # whoever read the output has had enough
        streams.drop(sys.stdout)
        return 0
    except OSError as error:  # a folder that is not there, a file that may not be written
        is_output = error.filename is None and error.errno in (errno.ENOSPC, errno.EIO, errno.EBADF)
        hint = "name a file or folder that this user may read and write"
        if is_output:
            streams.drop(sys.stdout)
            hint = "what was to be printed, or written, found no room; the command itself may have done its work"
        return _fail(CliError(error.strerror or str(error), where=str(error.filename or "dflow"), hint=hint))
    return code


def _run(arguments: Sequence[str] | None) -> int:
    try:
        code = app(args=None if arguments is None else list(arguments), prog_name="dflow", standalone_mode=False)
    except CliError as problem:
        return _fail(problem)
    except _UsageError as error:
        return _fail(_usage(error))
    except SystemExit as ended:  # typer's own way out where nobody reads the output any more
        raise BrokenPipeError from ended
    except (KeyboardInterrupt, typer.Abort):
        streams.say("interrupted")
        return EXIT_INTERRUPTED
    return code if isinstance(code, int) else 0


def _usage(error: BaseException) -> CliError:
    message = getattr(error, "format_message", error.__str__)()
    command = getattr(getattr(error, "ctx", None), "command_path", "dflow")
    return CliError(message.rstrip("."), where=command, hint=f"`{command} --help` lists what it takes")


def _fail(problem: CliError) -> int:
    streams.say(explain(problem))
    return problem.exit_code


if __name__ == "__main__":
    sys.exit(main())
