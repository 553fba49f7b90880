"""ZeroMQ as it is: messages sent from where they lie and read without a copy, over TCP, one I/O thread an end.

A piece longer than MESSAGE_BYTES goes as several messages, which is faster than one: its memory is used again, since
the allocator is told to keep what is freed, as our lane tells it. What came is dropped unread.
`python -m benchmarks.micro.fetch.zeromq`.
"""

from __future__ import annotations

import os

import zmq

from benchmarks.micro.fetch.way import BUFFER_BYTES, Sample, answer_lines, fetch_in_order
from dflowd.process.heap import keep_what_is_freed

MESSAGE_BYTES = 1 << 20
QUEUE_MESSAGES = 64


class Sockets:
    """The asking end; the other one is a fork of this process."""

    def __init__(self) -> None:
        keep_what_is_freed()
        said, say = os.pipe()
        self._answerer = os.fork()
        if self._answerer == 0:
            answer(say)
            os._exit(0)
        self._socket = zmq.Context().socket(zmq.DEALER)
        self._socket.set_hwm(QUEUE_MESSAGES)
        self._socket.connect(os.read(said, 100).decode())

    def fetch(self, nbytes: int, at_once: int, seconds: float) -> Sample:
        ends = os.getpid(), self._answerer
        return fetch_in_order(self._ask, self._receive, ends, nbytes, at_once, seconds)

    def _ask(self, nbytes: int) -> None:
        self._socket.send(nbytes.to_bytes(8))

    def _receive(self, nbytes: int) -> None:
        while nbytes:
            nbytes -= len(self._socket.recv(copy=False))


def answer(say: int) -> None:
    """Send what is asked for, until the process that asks is gone."""
    socket = zmq.Context().socket(zmq.ROUTER)
    socket.set_hwm(QUEUE_MESSAGES)
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)  # wait for room in a queue that is full
    os.write(say, f"tcp://127.0.0.1:{socket.bind_to_random_port('tcp://127.0.0.1')}".encode())
    data, asker = memoryview(bytearray(BUFFER_BYTES)), os.getppid()
    while os.getppid() == asker:
        if not socket.poll(1000):
            continue
        link, ask = socket.recv_multipart()
        nbytes = int.from_bytes(ask)
        for at in range(0, nbytes, MESSAGE_BYTES):
            socket.send_multipart([link, data[at : min(at + MESSAGE_BYTES, nbytes)]], copy=False)


if __name__ == "__main__":
    answer_lines(Sockets())
