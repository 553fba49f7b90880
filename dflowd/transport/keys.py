"""Who a node is and whom it lets in: CURVE key files and the allow-list.

Owns the two file formats. Knows nothing of sockets.

A key file, readable by its owner alone (keys as 40 characters of Z85, ZeroMQ RFC 32):

    public = rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7
    secret = JTKVSB%%)wK0E.X)V>+}o?pNmC{O&4W4b!Ni{Lh6

An allow-list has one line a key, `KEY name [host:port] [role]`. The role is `node` (the default; a member of the mesh)
or `client` (may ask, is never dialled). Blank lines, and lines that begin with `#`, as no key does, say nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import zmq
from zmq.utils import z85

from dflow_protocols.names import NodeId, node_id

KEY_CHARACTERS = 40  # Z85 of 32 bytes
ROLES = ("node", "client")


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


def key_text(key: bytes) -> str:
    """32 raw bytes as 40 characters of Z85."""
    return z85.encode(key).decode()


def parse_key(text: str) -> bytes:
    """The 32 raw bytes of a key in Z85. Raises ValueError for anything else."""
    if len(text) != KEY_CHARACTERS:
        raise ValueError(f"a key has {KEY_CHARACTERS} characters, not {len(text)}")
    try:
        key = bytes(z85.decode(text.encode("ascii")))
        if key_text(key) == text:  # groups beyond 32 bits are not all refused by z85
            return key
    except Exception:  # z85 fails by KeyError, struct.error or UnicodeError, as the text pleases
        raise ValueError("not a Z85 key") from None
    raise ValueError("not a Z85 key")


def new_key_pair() -> KeyPair:
    public, secret = zmq.curve_keypair()
    return KeyPair(z85.decode(public), z85.decode(secret))


def write_key_pair(path: Path, pair: KeyPair) -> None:
    """Write a new key file with mode 0600. Raises FileExistsError: a key is an identity and is never overwritten."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(f"public = {key_text(pair.public)}\nsecret = {key_text(pair.secret)}\n")
        file.flush()
        os.fsync(file.fileno())


def read_key_pair(path: Path) -> KeyPair:
    """Read a key file. Raises KeyFileError if it is missing, open to others, malformed, or its halves do not fit."""
    try:
        mode = path.stat().st_mode
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileError(str(path), _reason(error), "name an existing key file, readable by this user") from None
    if mode & 0o077:
        raise KeyFileError(str(path), "other users may read this secret key", f"chmod 600 {path}")
    values: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = line.partition(" = ")
        values[name.strip()] = value.strip()
    try:
        pair = KeyPair(parse_key(values["public"]), parse_key(values["secret"]))
    except (KeyError, ValueError) as error:
        what = f"no line `{error.args[0]} = ...`" if isinstance(error, KeyError) else str(error)
        raise KeyFileError(str(path), what, "a key file has two lines, `public = KEY` and `secret = KEY`") from None
    if z85.decode(zmq.curve_public(z85.encode(pair.secret))) != pair.public:
        raise KeyFileError(str(path), "the two keys are not a pair", "restore the file, or make a new key")
    return pair


@dataclass(frozen=True, slots=True)
class Allowed:
    """One line of the allow-list. `address`: host:port of its control lane, empty where the line has none."""

    public: bytes
    name: str
    address: str = ""
    role: str = "node"

    @property
    def id(self) -> NodeId:
        return node_id(self.public)


def parse_allow_list(text: str, where: str) -> Mapping[bytes, Allowed]:
    """Public key -> its line, in the file's order. Raises KeyFileError naming the first bad line."""
    found: dict[bytes, Allowed] = {}
    names: set[str] = set()
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            allowed = _parse_line(words)
            if allowed.public in found or allowed.name in names:
                raise ValueError("this key or name came before")
        except ValueError as error:
            hint = "a line is `KEY name [host:port] [node|client]`; a comment begins with `#`"
            raise KeyFileError(f"{where}:{number}", str(error), hint) from None
        found[allowed.public] = allowed
        names.add(allowed.name)
    return found


def _parse_line(words: list[str]) -> Allowed:
    if not 2 <= len(words) <= 4:
        raise ValueError(f"{len(words)} words")
    public, name, rest = parse_key(words[0]), words[1], words[2:]
    role = rest.pop() if rest and rest[-1] in ROLES else "node"
    address = rest.pop() if rest else ""
    if rest:
        raise ValueError(f"`{rest[0]} {address}` is no address and role")
    if address:
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit():
            raise ValueError(f"`{address}` is neither host:port nor a role ({', '.join(ROLES)})")
    return Allowed(public, name, address, role)


class AllowList:
    """The allow-list as it stood in its file at the last `refresh`."""

    def __init__(self, path: Path) -> None:
        """Raises KeyFileError if the file cannot be read or has a bad line."""
        self._path = path
        self._stamp = self._stat()
        self.lines: Mapping[bytes, Allowed] = self._read()  # public key -> its line; another object once it changed
        self.trouble: KeyFileError | None = None  # why the newest change was not taken up

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
