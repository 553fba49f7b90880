"""Whoever asks, and whatever: a page, or a refusal, within bounds. Real sockets on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from http import HTTPStatus

import pytest
import pytest_asyncio

from dflowd.exporter import server as module
from dflowd.exporter.server import MOST_OPEN, Page, Server

GET = b"GET /page HTTP/1.1\r\nHost: here\r\n\r\n"
made: list[int] = []


def page() -> Page:
    made.append(1)
    return Page(HTTPStatus.OK, "text/plain", b"words")


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Server]:
    made.clear()
    server = Server(asyncio.get_running_loop(), ("127.0.0.1", 0), {"/page": page})
    yield server
    server.close()
    await asyncio.sleep(0)


async def said(server: Server, request: bytes) -> bytes:
    """All that is answered until the line is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(request)
    try:
        return await asyncio.wait_for(reader.read(), 20)
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def test_a_page_is_given_whole(server: Server) -> None:
    head, _, body = (await said(server, GET)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Length: 5" in head
    assert body == b"words"
    assert (await said(server, GET.replace(b"GET", b"HEAD"))).endswith(b"\r\n\r\n")
    assert (await said(server, GET.replace(b"/page", b"/page?x=1"))).endswith(b"words")


async def test_who_asks_often_costs_no_more(server: Server) -> None:
    """A page is made once a second at most: a scrape walks through what the daemon knows."""
    for _ in range(20):
        assert (await said(server, GET)).endswith(b"words")
    assert 1 <= len(made) < 20


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /other HTTP/1.1\r\n\r\n", b"404"),
        (b"GET /../etc/passwd HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /page HTTP/1.1\r\n\r\n", b"405"),
        (b"\xff\xfe\x00\r\n\r\n", b"400"),
        (b"GET /page\r\n\r\n", b"400"),
        (b"GET \xff\xff HTTP/1.1\r\n\r\n", b"404"),
    ],
)
async def test_what_is_no_question_is_refused(server: Server, request_: bytes, status: bytes) -> None:
    assert (await said(server, request_)).startswith(b"HTTP/1.1 " + status)
    assert (await said(server, GET)).endswith(b"words")


async def test_a_request_without_end_is_cut_off(server: Server) -> None:
    """Its bytes are not kept: a stranger has no say in this process's memory."""
    assert await said(server, b"GET /page HTTP/1.1\r\n" + b"X: y\r\n" * 100_000) == b""
    assert (await said(server, GET)).endswith(b"words")


async def test_lines_that_are_held_open_are_few_and_end(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """They keep others out for as long as a request may take, and no longer."""
    monkeypatch.setattr(module, "PATIENCE_S", 0.5)
    held = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(MOST_OPEN)]
    assert all(await asyncio.gather(*(asyncio.wait_for(closed(reader), 20) for reader, _ in held)))
    assert (await said(server, GET)).endswith(b"words")
    for _, writer in held:
        writer.close()


async def closed(reader: asyncio.StreamReader) -> bool:
    """Once the other end has closed the line."""
    try:
        return await reader.read() == b""
    except ConnectionResetError:
        return True


async def test_one_line_too_many_is_closed_at_once(server: Server) -> None:
    held = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(MOST_OPEN)]
    await asyncio.sleep(0)
    assert await said(server, GET) == b""
    for _, writer in held:
        writer.close()
