"""Who a node is and whom it lets in: CURVE key files and the allow-list, as files of this host.

Owns reading and writing them; what they say is specified in dflow_protocols.wire.keys. Knows nothing of sockets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import zmq

from dflow_protocols.names import NodeId, content_id, node_id
from dflow_protocols.wire.keys import Allowed, AllowListError, key_file_text, key_text, parse_key, parse_key_file
from dflow_protocols.wire.keys import parse_allow_list as parse_lines

from ..process.durable import create_file


class KeyFileError(Exception):
    """A key file or an allow-list that cannot be used. `where`: file, and line where there is one."""

    def __init__(self, where: str, what: str, hint: str) -> None:
        super().__init__(f"{where}: {what}")
        self.where, self.what, self.hint = where, what, hint


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A CURVE key pair, 32 raw bytes each."""

    public: bytes
    secret: bytes = field(repr=False)

    @property
    def id(self) -> NodeId:
        return node_id(self.public)

    @property
    def public_text(self) -> str:
        return key_text(self.public)


def new_key_pair() -> KeyPair:
    public, secret = zmq.curve_keypair()
    return KeyPair(parse_key(public.decode()), parse_key(secret.decode()))


def write_key_pair(path: Path, pair: KeyPair) -> None:
    """Write a new key file with mode 0600, whole or not at all. Raises FileExistsError: a key is an identity and is
    never overwritten."""
    create_file(path, key_file_text(pair.public, pair.secret).encode())


def read_key_pair(path: Path) -> KeyPair:
    """Read a key file. Raises KeyFileError if it is missing, open to others, malformed, or its halves do not fit."""
    try:
        mode = path.stat().st_mode
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileError(str(path), _reason(error), "name an existing key file, readable by this user") from None
    if mode & 0o077:
        raise KeyFileError(str(path), "other users may read this secret key", f"chmod 600 {path}")
    try:
        pair = KeyPair(*parse_key_file(text))
    except ValueError as error:
        hint = "a key file has two lines, `public = KEY` and `secret = KEY`"
        raise KeyFileError(str(path), str(error), hint) from None
    if zmq.curve_public(key_text(pair.secret).encode()) != pair.public_text.encode():
        raise KeyFileError(str(path), "the two keys are not a pair", "restore the file, or make a new key")
    return pair


def parse_allow_list(text: str, where: str) -> Mapping[bytes, Allowed]:
    """Public key -> its line, in the file's order. Raises KeyFileError naming the first bad line."""
    try:
        return parse_lines(text)
    except AllowListError as error:
        hint = "a line is `KEY name [host:port] [node|client]`; a comment begins with `#`"
        raise KeyFileError(f"{where}:{error.line}", error.what, hint) from None


class AllowList:
    """The allow-list as it stood in its file at the last `refresh`."""

    def __init__(self, path: Path) -> None:
        """Raises KeyFileError if the file cannot be read or has a bad line."""
        self._path = path
        self._stamp = self._stat()
        self.lines: Mapping[bytes, Allowed] = self._read()  # public key -> its line; another object once it changed
        self.trouble: KeyFileError | None = None  # why the newest change was not taken up

    @property
    def digest(self) -> str:
        """One for all lists that let in the same keys in the same roles, whatever their order, names and addresses."""
        return content_id("allow_list", sorted([key_text(key), line.role] for key, line in self.lines.items()))

    def named(self, name: str) -> Allowed | None:
        return next((line for line in self.lines.values() if line.name == name), None)

    def refresh(self) -> None:
        """Read the file again if it changed. One that cannot be used leaves the last good content, and `trouble`."""
        try:
            stamp = self._stat()
            if stamp != self._stamp:
                self._stamp = stamp
                self.lines = self._read()
            elif self.trouble is not None:
                return
        except KeyFileError as error:
            self.trouble = error
            return
        self.trouble = None

    def _stat(self) -> tuple[int, int, int]:
        try:
            status = self._path.stat()
        except OSError as error:
            raise KeyFileError(str(self._path), _reason(error), "name an existing allow-list") from None
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _read(self) -> Mapping[bytes, Allowed]:
        try:
            text = self._path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise KeyFileError(str(self._path), _reason(error), "name a readable allow-list") from None
        return parse_allow_list(text, str(self._path))


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else "not a text file"
