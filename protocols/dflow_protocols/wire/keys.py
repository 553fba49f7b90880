"""Keys as people and files have them, and the allow-list: who may speak to a mesh.

Owns three texts: a CURVE key in Z85 (ZeroMQ RFC 32), the key file, and the allow-list. Knows nothing of files, sockets
or curves: whether two halves are a pair is asked by who loads libzmq.

A key file, readable by its owner alone; a client's says so, which keeps it from being listed as a node by mistake:

    public = rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7
    secret = JTKVSB%%)wK0E.X)V>+}o?pNmC{O&4W4b!Ni{Lh6
    role = client

An allow-list has one line a key, `KEY name [host:port] [role]`. The role is `node` (the default; a member of the mesh)
or `client` (may ask, is never dialled). Blank lines, and lines that begin with `#`, as no key does, say nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ..names import NodeId, node_id
from .endpoint import Endpoint, parse_endpoint

KEY_BYTES: Final = 32
KEY_CHARACTERS: Final = 40  # Z85 of 32 bytes; its alphabet holds `@` and `:` too
ROLES: Final = ("node", "client")

_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
_VALUES: Final = {character: value for value, character in enumerate(_ALPHABET)}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def key_text(key: bytes) -> str:
    """32 raw bytes as 40 characters of Z85."""
    assert len(key) == KEY_BYTES, "a key has 32 bytes"
    text = []
    for at in range(0, KEY_BYTES, 4):
        number = int.from_bytes(key[at : at + 4], "big")
        text += [_ALPHABET[number // 85**power % 85] for power in (4, 3, 2, 1, 0)]
    return "".join(text)


def parse_key(text: str) -> bytes:
    """The 32 raw bytes of a key in Z85. Raises ValueError for anything else."""
    if len(text) != KEY_CHARACTERS:
        raise ValueError(f"a key has {KEY_CHARACTERS} characters, not {len(text)}")
    key = b""
    for at in range(0, KEY_CHARACTERS, 5):
        number = 0
        for character in text[at : at + 5]:
            if character not in _VALUES:
                raise ValueError("not a Z85 key")
            number = number * 85 + _VALUES[character]
        if number >= 1 << 32:  # five characters say a little more than four bytes
            raise ValueError("not a Z85 key")
        key += number.to_bytes(4, "big")
    return key


def is_name(text: str) -> bool:
    """Whether `text` can be what people call a node or a client: letters, digits, dots, dashes, at most 63."""
    return _NAME.fullmatch(text) is not None


def key_file_text(public: bytes, secret: bytes, role: str = "node") -> str:
    said = f"public = {key_text(public)}\nsecret = {key_text(secret)}\n"
    return said if role == "node" else f"{said}role = {role}\n"


def key_file_role(text: str) -> str:
    """Whom a key file was made for: `node`, or `client`."""
    return "client" if _key_file_values(text).get("role") == "client" else "node"


def parse_key_file(text: str) -> tuple[bytes, bytes]:
    """The public and the secret half, 32 raw bytes each. Raises ValueError, in words."""
    values = _key_file_values(text)
    for half in ("public", "secret"):
        if half not in values:
            raise ValueError(f"no line `{half} = ...`")
    return parse_key(values["public"]), parse_key(values["secret"])


def _key_file_values(text: str) -> dict[str, str]:
    pairs = (line.partition(" = ") for line in text.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


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

    def __str__(self) -> str:
        return " ".join(word for word in (key_text(self.public), self.name, self.address, self.role) if word)


class AllowListError(ValueError):
    """A line that says nothing sure. `line` counts from 1."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(what)
        self.line, self.what = line, what


def parse_allow_list(text: str) -> Mapping[bytes, Allowed]:
    """Public key -> its line, in the text's order. Raises AllowListError for the first bad line."""
    found: dict[bytes, Allowed] = {}
    names: set[str] = set()
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            allowed = parse_allowed(line)
            if allowed is None:
                continue
            if allowed.public in found or allowed.name in names:
                raise ValueError("this key or name came before")
        except ValueError as error:
            raise AllowListError(number, str(error)) from None
        found[allowed.public] = allowed
        names.add(allowed.name)
    return found


def parse_allowed(line: str) -> Allowed | None:
    """What one line says; None for a comment or a blank one. Raises ValueError, in words."""
    words = line.split()
    if not words or words[0].startswith("#"):
        return None
    if not 2 <= len(words) <= 4:
        raise ValueError(f"{len(words)} words")
    public, name, rest = parse_key(words[0]), words[1], words[2:]
    role = rest.pop() if rest and rest[-1] in ROLES else "node"
    address = rest.pop() if rest else ""
    if rest:
        raise ValueError(f"`{rest[0]} {address}` is no address and role")
    return Allowed(public, name, str(_endpoint(address)) if address else "", role)


def _endpoint(text: str) -> Endpoint:
    """Raises ValueError, in words."""
    try:
        found = parse_endpoint(text)
    except ValueError as error:
        if ":" not in text:
            raise ValueError(f"`{text}` is neither host:port nor a role ({', '.join(ROLES)})") from None
        raise ValueError(f"`{text}` {error}") from None
    if not found.port:
        raise ValueError(f"`{text}` has no port that could be dialled")
    return found
