"""A group of commands: help by sections without a cut line, and the command that was meant where there is none."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from .errors import CliError

HELP_NAMES = {"help_option_names": ["-h", "--help"]}
WHOLE = 1 << 16  # characters of a command's first sentence: it is wrapped, and never cut

# What people type who come from other tools (docker, kubectl, git, ray, slurm), and what it is called here.
ELSEWHERE = {
    "abort": ("cancel",),
    "apply": ("submit",),
    "attach": ("watch",),
    "chart": ("plot",),
    "check": ("validate", "doctor"),
    "continue": ("resume",),
    "create": ("init",),
    "curves": ("plot",),
    "delete": ("cancel",),
    "download": ("export",),
    "exec": ("run",),
    "figures": ("metrics",),
    "generations": ("samples",),
    "graph": ("plan",),
    "halt": ("down",),
    "hosts": ("nodes",),
    "jobs": ("ps",),
    "kill": ("cancel", "down"),
    "launch": ("run", "up"),
    "lint": ("validate",),
    "list": ("ps",),
    "ls": ("ps",),
    "members": ("nodes",),
    "monitor": ("watch",),
    "new": ("init",),
    "pause": ("cancel", "down"),
    "queue": ("ps",),
    "restart": ("resume",),
    "rm": ("cancel",),
    "rollouts": ("samples",),
    "runs": ("ps",),
    "save": ("export",),
    "show": ("watch", "plan"),
    "start": ("up", "run"),
    "stats": ("metrics",),
    "status": ("ps",),
    "stop": ("down", "cancel"),
    "top": ("watch",),
    "train": ("run",),
    "workers": ("nodes",),
}


class Command(TyperCommand):
    """As typer's command; its help shows arguments as they are typed, without Python's types and required ones bare."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record and parameter.param_type_name == "argument":
                sections["Arguments"].append((record[0].partition(" ")[0], record[1].removesuffix("  [required]")))
            elif record:
                sections["Options"].append(record)
        for title, rows in sections.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


class CommandGroup(TyperGroup):
    """As typer's group; without any argument it prints its help, as asked for by `--help`. Raises CliError for a
    command that is not there."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:
            typer.echo(ctx.get_help())
            raise typer.Exit
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        if self.get_command(ctx, args[0]) is None and not ctx.resilient_parsing:
            raise CliError(
                f"there is no command `{args[0]}`", where=ctx.command_path, hint=_meant(args[0], self, ctx.command_path)
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """A section for each `rich_help_panel`, in the order in which commands were added."""
        widest = max(map(len, self.commands), default=0)
        sections: dict[str, list[tuple[str, str]]] = {}
        for name, command in self.commands.items():
            section = getattr(command, "rich_help_panel", None)
            title = section if isinstance(section, str) else "Commands"
            sections.setdefault(title, []).append((name.ljust(widest), command.get_short_help_str(WHOLE)))
        for title, rows in sections.items():
            with formatter.section(title):
                formatter.write_dl(rows)


def _meant(name: str, group: CommandGroup, path: str) -> str:
    """A hint: the commands that were most likely meant."""
    found = [known for known in ELSEWHERE.get(name.lower(), ()) if known in group.commands]
    found = found or get_close_matches(name.lower(), list(group.commands), n=2)
    names = " or ".join(f"`{path} {command}`" for command in found)
    every = f"`{path} --help` lists all commands"
    return f"did you mean {names}? {every}" if found else every
