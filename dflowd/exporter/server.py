"""Pages over HTTP, for who may reach the address: read-only, one answer a connection, whatever is sent.

A request has a bound in bytes and in time, and so has their number: what is sent here costs the daemon's loop little,
and never more than that.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus

MOST_BYTES = 8192  # of a request's head; a body is not read
MOST_OPEN = 16  # connections; one more is closed at once
PATIENCE_S = 5.0  # from a connection's start to its end
FRESH_S = 1.0  # that a page is told again as it is: many who ask cost as much as one


@dataclass(frozen=True, slots=True)
class Page:
    status: HTTPStatus
    kind: str  # of its content
    body: bytes


Maker = Callable[[], Page]


class Server:
    """Serves `pages` by their paths. For the loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, address: tuple[str, int], pages: Mapping[str, Maker]) -> None:
        """Raises OSError where it cannot listen. Port 0 takes a free one."""
        self._loop, self._pages = loop, dict(pages)
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._listening = socket.create_server(address, family=family, backlog=MOST_OPEN)
        self._made: dict[str, tuple[float, Page]] = {}
        self._open = 0
        self._serving = loop.create_task(self._serve())
        self._serving.add_done_callback(lambda _: self._listening.close())  # also where it had not begun

    @property
    def port(self) -> int:
        return int(self._listening.getsockname()[1])

    def close(self) -> None:
        self._serving.cancel()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._answer, sock=self._listening, limit=MOST_BYTES)
        await server.serve_forever()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        ends = (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError)
        try:
            with contextlib.suppress(*ends):
                if self._open <= MOST_OPEN:
                    async with asyncio.timeout(PATIENCE_S):
                        head = await reader.readuntil(b"\r\n\r\n")
                        writer.write(self._response(head))
                        await writer.drain()
                        writer.write_eof()
                        await reader.read(MOST_BYTES)  # who is cut off before it has read may lose what was sent
        finally:
            self._open -= 1
            writer.transport.abort()

    def _response(self, head: bytes) -> bytes:
        words = head.partition(b"\r\n")[0].split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return _packed(_plain(HTTPStatus.BAD_REQUEST), True)
        method, target = words[0], words[1].partition(b"?")[0].decode("ascii", "replace")
        if method not in (b"GET", b"HEAD"):
            return _packed(_plain(HTTPStatus.METHOD_NOT_ALLOWED), True)
        page = self._page(target) if target in self._pages else _plain(HTTPStatus.NOT_FOUND)
        return _packed(page, method == b"GET")

    def _page(self, path: str) -> Page:
        now = self._loop.time()
        made_s, page = self._made.get(path, (-FRESH_S, None))
        if page is None or now - made_s >= FRESH_S:
            page = self._pages[path]()
            self._made[path] = now, page
        return page


def _plain(status: HTTPStatus) -> Page:
    return Page(status, "text/plain; charset=utf-8", f"{status.phrase}\n".encode())


def _packed(page: Page, with_body: bool) -> bytes:
    lines = (
        f"HTTP/1.1 {page.status.value} {page.status.phrase}",
        f"Content-Type: {page.kind}",
        f"Content-Length: {len(page.body)}",
        "Cache-Control: no-store",
        "Connection: close",
    )
    head = "".join(f"{line}\r\n" for line in (*lines, "")).encode()
    return head + (page.body if with_body else b"")
