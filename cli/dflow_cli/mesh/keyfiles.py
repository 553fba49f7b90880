"""Key files and allow-lists as a client writes them: one line at a time, whole or not at all.

What stands in them is specified in dflow_protocols.keys. A secret is written, and handed to libzmq; it is never shown.
"""

from __future__ import annotations

import contextlib
import difflib
import fcntl
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import zmq

from dflow_protocols.wire.keys import (
    KEY_CHARACTERS,
    Allowed,
    AllowListError,
    key_file_role,
    key_file_text,
    key_text,
    parse_allow_list,
    parse_allowed,
    parse_key,
    parse_key_file,
)

from ..errors import CliError
from .client import KeyPair

LINE_HINT = "a line is `KEY name [host:port] [node|client]`; a comment begins with `#`"


def key_pair(path: Path, role: str = "client") -> KeyPair:
    """The key pair in `path`, made if there is none. Raises CliError as read_key_pair()."""
    if not path.exists():
        return new_key_pair(path, role)
    return read_key_pair(path)


def new_key_pair(path: Path, role: str) -> KeyPair:
    """Make a key pair and its file (mode 0600, whole or not at all). Raises CliError where a file is: a key is an
    identity."""
    public, secret = zmq.curve_keypair()
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, new = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(key_file_text(parse_key(public.decode()), parse_key(secret.decode()), role))
            file.flush()
            os.fsync(file.fileno())
        os.link(new, path)
    except FileExistsError:
        hint = f"`dflow keys show {path}` prints its public half; a lost key is replaced, never overwritten"
        raise CliError("a file is here already", where=str(path), hint=hint) from None
    finally:
        os.unlink(new)
    return KeyPair(public.decode(), secret.decode())


def read_key_pair(path: Path) -> KeyPair:
    """Raises CliError when the file is missing, open to others or damaged, or its halves are no pair."""
    try:
        mode = path.stat().st_mode
        public, secret = parse_key_file(path.read_text())
    except FileNotFoundError:
        raise CliError("no such key file", where=str(path), hint=f"make one with `dflow keys new {path}`") from None
    except (ValueError, UnicodeDecodeError) as error:
        hint = "restore it, or delete it to get a new key"
        raise CliError(str(error), where=str(path), hint=hint) from error
    if mode & 0o077:
        raise CliError("other users may read this secret key", where=str(path), hint=f"chmod 600 {path}")
    pair = KeyPair(key_text(public), key_text(secret))
    if zmq.curve_public(pair.secret.encode()).decode() != pair.public:
        raise CliError("the two keys are not a pair", where=str(path), hint="restore the file, or make a new key")
    return pair


def role_of(path: Path) -> str:
    """Whom a key file was made for: `node` or `client`. Call it after read_key_pair()."""
    return key_file_role(path.read_text())


def read_allow_list(path: Path) -> Mapping[bytes, Allowed]:
    """Public key -> its line. Raises CliError naming the file, and the line where one is bad."""
    try:
        return parse_allow_list(path.read_text())
    except FileNotFoundError:
        hint = "name the allow-list of the mesh (`mesh.allow_list` of the daemons' configuration)"
        raise CliError("no such allow-list", where=str(path), hint=hint) from None
    except AllowListError as error:
        raise CliError(error.what, where=f"{path}:{error.line}", hint=LINE_HINT) from None
    except UnicodeDecodeError:
        raise CliError("is no text file", where=str(path), hint=LINE_HINT) from None


def authorize(path: Path, lines: Sequence[Allowed]) -> list[bool]:
    """Add lines to the allow-list, made if there is none: all of them or, where one cannot be, none. For each whether
    it is new: False where the same line stood there already.

    Raises CliError when a key or a name stands there otherwise.
    """
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path):
        known = dict(read_allow_list(path)) if path.exists() else {}
        is_new = []
        for line in lines:
            is_new.append(known.get(line.public) != line)
            if is_new[-1]:
                _refuse_other(path, line, known.values())
                known[line.public] = line
        text = path.read_text() if path.exists() else ""
        added = "".join(f"{line}\n" for line, new in zip(lines, is_new, strict=True) if new)
        if added:
            _replace(path, text + ("" if text.endswith("\n") or not text else "\n") + added)
    return is_new


def _refuse_other(path: Path, line: Allowed, known: Iterable[Allowed]) -> None:
    for other in known:
        for what, is_same in (("key", other.public == line.public), ("name", other.name == line.name)):
            if is_same:
                hint = f"take that line away first: dflow keys revoke {path} {other.name}"
                stands = f"this {what} has a line already: {other.name} {other.address} {other.role}"
                raise CliError(stands, where=str(path), hint=hint)


def revoke(path: Path, who: str) -> Allowed:
    """Take the line of a name, or of a key, out of the allow-list; returns it. Raises CliError if there is none."""
    path = Path(os.path.realpath(path))
    read_allow_list(path)  # a folder that is not there cannot be locked
    with _locked(path):
        known = read_allow_list(path)
        gone = next((line for line in known.values() if who in (line.name, key_text(line.public))), None)
        if gone is None:
            raise CliError(f"no line with `{who}`", where=str(path), hint=_nearest(who, known))
        lines = path.read_text().splitlines(keepends=True)
        _replace(path, "".join(line for line in lines if parse_allowed(line) != gone))
    return gone


def _nearest(who: str, known: Mapping[bytes, Allowed]) -> str:
    names = [line.name for line in known.values()]
    close = difflib.get_close_matches(who, names, n=1)
    if close:
        return f"did you mean `{close[0]}`?"
    if len(who) == KEY_CHARACTERS:
        return "the key is not on the list, so nobody with it may speak to the mesh"
    return f"names on the list: {', '.join(names[:20]) or 'none'}"


def enter(path: Path, ours: Sequence[Allowed]) -> None:
    """Put these lines into the allow-list, in place of those with one of their keys or names; the others stay."""
    with _locked(path):
        known = read_allow_list(path) if path.exists() else {}
        taken = {word for line in ours for word in (line.public, line.name)}
        others = [line for line in known.values() if line.public not in taken and line.name not in taken]
        _replace(path, "".join(f"{line}\n" for line in [*ours, *others]))


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One command at a time changes the files of a folder."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _replace(path: Path, text: str) -> None:
    """A new file over the old one, with its owner and mode: a daemon reads the old list or the new one."""
    fresh = path.with_name(path.name + ".new")
    with fresh.open("w") as file:
        if path.exists():
            status = path.stat()
            os.fchmod(file.fileno(), status.st_mode & 0o7777)
            with contextlib.suppress(PermissionError):
                os.fchown(file.fileno(), status.st_uid, status.st_gid)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)
