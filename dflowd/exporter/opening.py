"""Opens what monitoring asks: from the address in the configuration to pages over the rooms' facts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus

from dflow_protocols.wire.endpoint import parse_endpoint

from .families import KIND, Exposition, Sources
from .server import Page, Server

TEXT = "text/plain; charset=utf-8"


def open_exporter(
    loop: asyncio.AbstractEventLoop, address: str, sources: Sources, faults: Callable[[], list[str]]
) -> Server:
    """`address`: HOST:PORT. `faults`: why the daemon is not well, a line each. Raises OSError."""
    exposition, place = Exposition(sources), parse_endpoint(address)

    def metrics() -> Page:
        return Page(HTTPStatus.OK, KIND, exposition())

    def health() -> Page:
        lines = faults()
        status = HTTPStatus.SERVICE_UNAVAILABLE if lines else HTTPStatus.OK
        return Page(status, TEXT, "".join(f"{line}\n" for line in lines or ["ok"]).encode())

    return Server(loop, (place.host, place.port), {"/metrics": metrics, "/healthz": health})
