"""Messages between a client (or a daemon that gathers for one) and a daemon: a request, an answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Request:
    """Ask for `method` with `params` (a msgpack map). `deadline_s`: answer by then with what is there."""

    id: int
    method: str
    params: bytes
    deadline_s: float


@dataclass(frozen=True, slots=True)
class Response:
    """`ok`: `value` is the answer (a msgpack map); else a map {what, hint, exit}."""

    id: int
    ok: bool
    value: bytes


CLIENT_MESSAGES = (Request, Response)
