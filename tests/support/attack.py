"""Attacks on one daemon: as a stranger, with a client's key, with a node's. Each tells what it tried and got."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgpack
import zmq

from dflow_protocols.names import RunId, ShardId
from dflow_protocols.wire.bulk import Ask, SessionOffer, SessionReady, pack_asks
from dflow_protocols.wire.client import Request, Response
from dflow_protocols.wire.codec import MESSAGES
from dflow_protocols.wire.frame import MARK, WIRE_VERSION, Frame, decode_frame, encode_frame
from dflow_protocols.wire.gossip import Meta, Sync, Update
from dflow_protocols.wire.keys import key_text
from dflow_protocols.wire.steps import BucketGet, FailurePut, RunGet, RunPut, RunStates
from dflowd.transport.aead import AeadSession
from dflowd.transport.keys import KeyPair, new_key_pair
from tests.support.invention import Inventor
from tests.support.mesh import Daemon

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00"
HEADER = bytes((MARK, WIRE_VERSION))
WAIT_MS = 300
METHODS = ("status", "nodes", "submit", "cancel", "runs", "run", "wait", "tasks", "metrics", "samples", "events")


@dataclass
class Outcome:
    """`answered`: messages (or, of a stranger, bytes beyond the greeting) that came back."""

    tried: int = 0
    answered: int = 0


def place(address: str) -> tuple[str, int]:
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    return host, int(port)


# Strangers ----------------------------------------------------------------------------------------------------------


def connections(address: str, count: int) -> Outcome:
    """Open links and say nothing; all stay open as long as the daemon lets them."""
    links = []
    for _ in range(count):
        with contextlib.suppress(OSError):
            links.append(socket.create_connection(place(address), timeout=2))
    for link in links:
        link.close()
    return Outcome(count)


def garbage(address: str, count: int) -> Outcome:
    """Random bytes, other protocols, greetings of other mechanisms, commands that claim to be endless."""
    curve = GREETING + b"CURVE".ljust(20, b"\0") + bytes(32)
    openings = [
        b"GET / HTTP/1.1\r\n\r\n",
        GREETING + b"NULL".ljust(20, b"\0") + bytes(32),
        GREETING + b"PLAIN".ljust(20, b"\0") + bytes(32) + b"\x04\x1a\x05HELLO\x01a\x01b",
        curve + b"\x06" + (1 << 62).to_bytes(8, "big"),
        curve + b"\x04\xc8\x05HELLO\x01\x00" + os.urandom(192),
        b"\xff" * 64,
    ]
    out = Outcome()
    for at in range(count):
        junk = openings[at % 7] if at % 7 < len(openings) else os.urandom(random.randrange(5_000))
        with contextlib.suppress(OSError), socket.create_connection(place(address), timeout=2) as link:
            link.settimeout(0.02)
            link.sendall(junk)
            with contextlib.suppress(OSError):
                out.answered += max(0, len(link.recv(4096)) - 64)  # everybody is greeted: 64 bytes, the same for all
        out.tried += 1
    return out


def unlisted_keys(node: Daemon, count: int) -> Outcome:
    """Whole CURVE handshakes under keys that nobody listed."""
    out = Outcome()
    for _ in range(count):
        with dealer(node, new_key_pair()) as link:
            link.send(encode_frame(None, (Request(1, "status", b"", 1.0),)))
            out.answered += link.poll(20)
        out.tried += 1
    return out


def stolen_names(node: Daemon, victims: list[str], count: int) -> Outcome:
    """The bulk lane under members' names, with tokens that were guessed."""
    out, context = Outcome(), zmq.Context()
    for at in range(count):
        link = context.socket(zmq.DEALER)
        link.linger = 0
        link.plain_username = victims[at % len(victims)].encode()
        link.plain_password = os.urandom(32).hex().encode()
        link.connect(node.bulk)
        link.send(os.urandom(200))
        out.answered += link.poll(20)
        link.close()
        out.tried += 1
    context.destroy(linger=0)
    return out


# A listed key --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def dealer(node: Daemon, keys: KeyPair) -> Iterator[zmq.Socket[bytes]]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    link = context.socket(zmq.DEALER)
    link.curve_publickey, link.curve_secretkey = (key_text(key).encode() for key in (keys.public, keys.secret))
    link.curve_serverkey = key_text(node.keys.public).encode()
    link.linger = 0
    link.connect(node.control)
    try:
        yield link
    finally:
        context.destroy(linger=0)


def heard(link: zmq.Socket[bytes], wait_ms: int = WAIT_MS) -> list[Frame]:
    """All frames that came; what cannot be read is a fault of the daemon."""
    frames = []
    while link.poll(wait_ms):
        frames.append(decode_frame(link.recv_multipart()[-1]))
        wait_ms = min(wait_ms, 50)
    return frames


def broken_frames(node: Daemon, keys: KeyPair, count: int) -> Outcome:
    """Random bytes, other versions, cut-off, deep and wide msgpack, messages of several parts."""
    rng, out = random.Random(1), Outcome()
    good = encode_frame(None, (Request(1, "status", b"", 1.0),))
    makers: list[Callable[[], bytes]] = [
        lambda: rng.randbytes(rng.randrange(300)),
        lambda: HEADER + rng.randbytes(rng.randrange(300)),
        lambda: bytes((MARK, rng.randrange(2, 256))) + good[2:],
        lambda: good[: rng.randrange(len(good))],
        lambda: HEADER + b"\x91" * 100_000,
        lambda: HEADER + b"\xdd\xff\xff\xff\xff",
        lambda: HEADER + b"\xdf\xff\xff\xff\xff" + b"\x01" * 1_000,
        lambda: HEADER + msgpack.packb([[], [[rng.choice(sorted(MESSAGES)), *[1] * rng.randrange(5)]]]),
    ]
    with dealer(node, keys) as link:
        for at in range(count):
            link.send(makers[at % len(makers)](), zmq.DONTWAIT if at % 64 else 0)
            out.tried += 1
            if at % 100 == 99:
                time.sleep(0.2)  # below the rate, so that each is looked at
        out.answered = sum(len(frame.messages) for frame in heard(link))
    return out


def wrong_requests(node: Daemon, keys: KeyPair, count: int) -> Outcome:
    """Methods that are not for clients, parameters of wrong types, nested and long ones. `answered`: not refused."""
    rng, out = random.Random(2), Outcome()
    values: list[object] = [
        None,
        True,
        -1,
        1 << 63,
        float("nan"),
        float("inf"),
        "x" * 5000,
        b"\0" * 5000,
        [[]] * 50,
        {"a": {}},
        1e308,
    ]
    names = ("run", "spec", "base", "nonce", "step", "limit", "since_step", "timeout_s", "known_step", "level", "after")
    methods = (*METHODS, "share.tasks", "share.metrics", "share.end", "checkpoint.piece", "no_such", "\n", "")
    with dealer(node, keys) as link:
        for number in range(count):
            params = {name: rng.choice(values) for name in rng.sample(names, rng.randrange(len(names)))}
            packed = msgpack.packb(params) if number % 9 else os.urandom(50)
            link.send(encode_frame(None, (Request(number, rng.choice(methods), packed, 0.1),)))
            out.tried += 1
            if number % 50 == 49:
                frames = heard(link, 50)
                answers = [each for frame in frames for each in frame.messages if isinstance(each, Response)]
                out.answered += sum(answer.ok for answer in answers)
    return out


def unread_answers(node: Daemon, keys: KeyPair, count: int) -> Outcome:
    """A flood of requests for all there is, and nothing of the answers is read."""
    with dealer(node, keys) as link:
        link.rcvhwm = 1
        for number in range(count):
            many = tuple(Request(number, method, b"", 5.0) for method in ("events", "runs", "nodes", "status"))
            with contextlib.suppress(zmq.Again):
                link.send(encode_frame(None, many), zmq.DONTWAIT)
        time.sleep(1.0)
    return Outcome(count)


# A node's key --------------------------------------------------------------------------------------------------------


class Liar:
    """Holds a listed node's key and speaks to one daemon as that member."""

    def __init__(self, node: Daemon, keys: KeyPair, run: RunId, seed: int = 0) -> None:
        self.node, self.keys, self.run = node, keys, run
        self.inventor = Inventor(random.Random(seed))

    def lies(self, count: int) -> Outcome:
        """Frames of messages that are nearly true. Left out is what a member may do by right: end a run."""
        out, rng = Outcome(), random.Random(3)
        with dealer(self.node, self.keys) as link:
            meta = Meta(self.keys.public, "tcp://127.0.0.1:1", "tcp://127.0.0.1:1", "liar", "cpu", 1, ("trainer",))
            mine = Update(self.keys.id, 1, 0, "alive", meta.id, None)
            asks = (
                Sync(True, meta, (mine,)),
                RunGet(self.run),
                *(BucketGet(self.run, s, "d", "d", "d") for s in range(30)),
            )
            link.send(encode_frame(None, asks))
            for number in range(count):
                frame = self.inventor.frame()
                said = tuple(each for each in frame.messages if not isinstance(each, RunPut | FailurePut | RunStates))
                with contextlib.suppress(ValueError, OverflowError):
                    link.send(encode_frame(frame.delta, said))
                out.tried += 1
                if number % 40 == 39:
                    if rng.random() < 0.3:
                        link.send(encode_frame(None, asks))
                    for told in heard(link, 20):
                        out.answered += len(told.messages)
                        for each in (*told.messages, *told.heartbeats):
                            self.inventor.hear(each)
        return out

    def session(self) -> tuple[bytes, bytes]:
        """Token and key of a session that the daemon has admitted."""
        token, key = os.urandom(32), os.urandom(32)
        with dealer(self.node, self.keys) as control:
            control.send(encode_frame(None, (SessionOffer(token, key),)))
            ready = [each for frame in heard(control, 5_000) for each in frame.messages]
        assert SessionReady(token) in ready, "no session"
        return token, key

    def greedy_fetches(self, shards: list[ShardId], count: int) -> Outcome:
        """A session of its own, used for what a fetcher may not: replays, other counters, asks beyond all credit."""
        token, key = self.session()
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        link = context.socket(zmq.DEALER)
        link.linger = 0
        link.plain_username, link.plain_password = str(self.keys.id).encode(), token.hex().encode()
        link.connect(self.node.bulk)
        seal, out, last = AeadSession(key, is_fetcher=True, is_trusted=False), Outcome(), b""
        rng = random.Random(4)
        for number in range(count):
            kind = number % 5
            if kind == 0:
                last = seal.seal_head(pack_asks([Ask(number, ShardId(rng.randbytes(32).hex()), 0, 1 << 16, True)]))
            elif kind == 1:
                asks = [Ask(at, rng.choice(shards or [ShardId("0" * 64)]), 0, 8, True) for at in range(4096)]
                last = seal.seal_head(pack_asks(asks))
            elif kind == 2:
                out.answered += drained(link, 500)
                last = seal.seal_head(rng.randbytes(rng.randrange(2_000)))
            link.send(last if kind < 4 else rng.randbytes(500))  # kind 3: the same once more
            out.tried += 1
            came = drained(link, 50)
            if kind == 3 and came:
                raise AssertionError("a message that was played again was answered")
            out.answered += came
        context.destroy(linger=0)
        return out

    def endless_message(self, nbytes: int) -> Outcome:
        """One message on the bulk lane whose last part never comes, without libzmq, which would not send it."""
        token, _ = self.session()
        name, word = str(self.keys.id).encode(), token.hex().encode()
        hello = b"\x05HELLO" + bytes((len(name),)) + name + bytes((len(word),)) + word
        part = b"\x03" + (1 << 16).to_bytes(8, "big") + bytes(1 << 16)
        with socket.create_connection(place(self.node.bulk), timeout=5) as link:
            link.sendall(GREETING + b"PLAIN".ljust(20, b"\0") + bytes(32))
            link.sendall(b"\x04" + bytes((len(hello),)) + hello)
            welcome = b""
            while b"WELCOME" not in welcome:
                welcome += link.recv(4096)
            link.sendall(b"\x04\x09\x08INITIATE")
            out = Outcome()
            with contextlib.suppress(OSError):
                while out.tried * len(part) < nbytes:
                    link.sendall(part)
                    out.tried += 1
        return out


def drained(link: zmq.Socket[bytes], wait_ms: int) -> int:
    count = 0
    while link.poll(wait_ms):
        link.recv_multipart()
        count += 1
        wait_ms = 5
    return count
