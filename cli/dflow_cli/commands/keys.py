"""dflow keys new, show, authorize, revoke."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..folder import DEFAULT_FOLDER
from ..group import Command, CommandGroup
from ..options import AsJson, Folder

if TYPE_CHECKING:
    from dflow_protocols.wire.keys import Allowed

# A key may begin with a dash. A short option would be found at any place in one: `-h` stands in every third of these.
ANY_KEY = {"ignore_unknown_options": True, "help_option_names": ["--help"]}


class KeyCommand(Command):
    """A command that is given a key: `-h` asks for help as a word of its own, and in no key."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, ["--help" if word == "-h" else word for word in args])


keys = typer.Typer(
    name="keys",
    help="Make keys, and say which may speak to a mesh.",
    cls=CommandGroup,
    rich_markup_mode=None,
)

KeyFile = Annotated[Path, typer.Argument(metavar="FILE", help="The key file.")]
AllowListFile = Annotated[Path, typer.Argument(metavar="ALLOW_LIST", help="The allow-list of the mesh.")]
Name = Annotated[str, typer.Option("--name", metavar="NAME", help="What people call its owner.")]
Address = Annotated[
    str, typer.Option("--address", metavar="HOST:PORT", help="Of a node: where its control lane listens.")
]
Role = Annotated[
    str, typer.Option("--role", metavar="ROLE", help="`node`: a daemon of the mesh. `client`: may submit and ask.")
]


@keys.command(cls=Command)
def new(file: KeyFile, name: Name = "", address: Address = "", role: Role = "node", as_json: AsJson = False) -> None:
    """Make a key pair in FILE, and print its line for the allow-list. Only its owner may read FILE.

    Example: dflow keys new key --name a1 --address 10.0.0.7:7300
    """
    from ..mesh.keyfiles import new_key_pair

    line = _line(name or _host_name(), address, role)  # a mistake in the line leaves no key behind
    _show(new_key_pair(file, role).public, line, as_json)


@keys.command(cls=Command)
def show(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="Key file; without it the client key in DIR, made if missing."),
    ] = None,
    name: Name = "",
    address: Address = "",
    role: Annotated[
        str, typer.Option("--role", metavar="ROLE", help="`node` or `client`; without it as the file was made.")
    ] = "",
    folder: Folder = DEFAULT_FOLDER,
    as_json: AsJson = False,
) -> None:
    """Print the public half of a key, as a line for the allow-list. The secret half is never printed.

    Example: dflow keys show --dir ann --name ann
    """
    from ..mesh.keyfiles import key_pair, read_key_pair, role_of

    pair = key_pair(folder / "client.key") if file is None else read_key_pair(file)
    role = role or ("client" if file is None else role_of(file))
    line = _line(name or (_user_name() if role == "client" else _host_name()), address, role)
    _show(pair.public, line, as_json)


@keys.command(cls=KeyCommand, context_settings=ANY_KEY)
def authorize(
    allow_list: AllowListFile,
    key: Annotated[str, typer.Argument(metavar="KEY", help="40 characters, in single quotes; `-` reads lines.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="What people call its owner.")] = "",
    address: Address = "",
    role: Role = "node",
) -> None:
    """Add a key to the allow-list. Running daemons take it up within a second.

    With KEY `-`, the lines that `keys new` and `keys show` print are read from standard input.

    Example: dflow keys show --dir ann --name ann | dflow keys authorize allow -
    """
    from ..errors import CliError
    from ..mesh.keyfiles import authorize as add
    from ..output import note

    if key != "-" and not name:
        hint = "write KEY NAME; whole lines come by standard input: `dflow keys authorize ALLOW_LIST - < LINES`"
        raise CliError("a line needs a name", where="NAME", hint=hint)
    lines = _read_lines() if key == "-" else [_fill(key, _line(name, address, role))]
    for line, is_new in zip(lines, add(allow_list, lines), strict=True):
        note(f"{line.name} may speak to the mesh as a {line.role}{'' if is_new else ' already'}")


@keys.command(cls=KeyCommand, context_settings=ANY_KEY)
def revoke(
    allow_list: AllowListFile,
    who: Annotated[str, typer.Argument(metavar="NAME", help="The name in its line, or the key.")],
) -> None:
    """Take a key off the allow-list. Running daemons cut its links within a second and send it no more.

    Example: dflow keys revoke allow ann
    """
    from ..mesh.keyfiles import revoke as take_off
    from ..output import note

    gone = take_off(allow_list, who)
    note(f"{gone.name} may not speak to the mesh any more, wherever this allow-list is used")


def _line(name: str, address: str, role: str) -> Allowed:
    """A line of the allow-list whose key is not known yet. Raises CliError."""
    from dflow_protocols.wire.endpoint import parse_endpoint
    from dflow_protocols.wire.keys import KEY_BYTES, ROLES, Allowed, is_name

    from ..errors import CliError

    if role not in ROLES:
        raise CliError(f"`{role}` is no role", where="--role", hint=f"one of: {', '.join(ROLES)}")
    if not is_name(name):
        what = f"`{name}` is not a name" if name else "a line needs a name"
        raise CliError(what, where="NAME", hint="use 1 to 63 letters, digits, dots and dashes")
    try:
        address = str(parse_endpoint(address)) if address else ""
    except ValueError as error:
        hint = "such as 10.0.0.7:7300, or [2001:db8::7]:7300"
        raise CliError(f"`{address}` {error}", where="--address", hint=hint) from None
    if address and role == "client":
        raise CliError("a client is never dialled", where="--address", hint="leave it out, or say --role node")
    return Allowed(bytes(KEY_BYTES), name, address, role)


def _fill(key: str, line: Allowed) -> Allowed:
    """The line with its key. Raises CliError."""
    from dataclasses import replace

    from dflow_protocols.wire.keys import parse_key

    from ..errors import CliError

    try:
        return replace(line, public=parse_key(key))
    except ValueError as error:
        hint = "copy the 40 characters of the public half, in single quotes for the shell; `dflow keys show` prints it"
        raise CliError(str(error), where="KEY", hint=hint) from None


def _read_lines() -> list[Allowed]:
    from dflow_protocols.wire.keys import AllowListError, parse_allow_list

    from ..errors import CliError
    from ..mesh.keyfiles import LINE_HINT

    try:
        lines = list(parse_allow_list(sys.stdin.read()).values())
    except AllowListError as error:
        raise CliError(error.what, where=f"standard input:{error.line}", hint=LINE_HINT) from None
    if not lines:
        raise CliError("no line came", where="standard input", hint="pipe what `dflow keys show` prints into it")
    return lines


def _show(public: str, line: Allowed, as_json: bool) -> None:
    from ..output import print_json

    whole = _fill(public, line)
    if as_json:
        fields = {"id": whole.id, "name": whole.name, "address": whole.address, "role": whole.role}
        print_json({"public": public, "line": str(whole), **fields})
    else:
        print(whole)


def _host_name() -> str:
    import socket

    return socket.gethostname().partition(".")[0]


def _user_name() -> str:
    import getpass

    return getpass.getuser()
