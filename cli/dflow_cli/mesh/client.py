"""One wire connection to a mesh: requests to any daemon's control lane, and to another one when that is gone.

A daemon is named by where it listens and by the key that it proves there. The socket's own monitor tells at once when
a daemon dies or refuses the client's key, so no request waits for an answer that cannot come.
"""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import msgpack
import zmq
from zmq.utils.monitor import recv_monitor_message

from dflow_protocols.names import NodeId, node_id
from dflow_protocols.wire.client import Request, Response
from dflow_protocols.wire.endpoint import Endpoint, parse_endpoint
from dflow_protocols.wire.fields import WireError
from dflow_protocols.wire.frame import decode_frame, encode_frame
from dflow_protocols.wire.keys import KEY_CHARACTERS, parse_key

from ..errors import EXIT_FAILED, EXIT_NO_DAEMON, CliError

LINK_S = 3.0  # for connecting and the CURVE handshake; a living daemon needs milliseconds, a loaded one some hundred
GRACE_S = 2.0  # beyond a request's own deadline, for the way there and back
ASKED_ON = 4  # daemons that may say that they do not know a run, before that is believed
HEARTBEAT_MS = 1000
HEARTBEAT_TIMEOUT_MS = 5000  # a stopped or unplugged daemon is left after this

_LOST = (zmq.EVENT_DISCONNECTED, zmq.EVENT_CLOSED, zmq.EVENT_CONNECT_RETRIED)
_FOREIGN = (zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL, zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL)


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A CURVE key pair, both halves z85 text."""

    public: str
    secret: str


@dataclass(frozen=True, slots=True)
class KeyedEndpoint:
    """Where a daemon's control lane listens, and the public key (z85) that whoever answers there must prove."""

    key: str
    address: str  # tcp://HOST:PORT

    def __str__(self) -> str:
        return f"{self.key}@{self.address.removeprefix('tcp://')}"


def parse_keyed_endpoint(text: str) -> KeyedEndpoint:
    """The daemon meant by `KEY@HOST:PORT`. Raises CliError."""
    key, at, place = text[:KEY_CHARACTERS], text[KEY_CHARACTERS : KEY_CHARACTERS + 1], text[KEY_CHARACTERS + 1 :]
    hint = (
        f"KEY is the daemon's public key of {KEY_CHARACTERS} characters, in single quotes for the shell; "
        "`dflow up --json` prints it"
    )
    if at != "@":
        raise CliError(f"`{text}` is not KEY@HOST:PORT", where="--to", hint=hint)
    try:
        return KeyedEndpoint(key, parse_endpoint(place).url)
    except ValueError as error:
        what = f"`{text}` is not KEY@HOST:PORT" if "HOST:PORT" in str(error) else f"`{place}` {error}"
        raise CliError(what, where="--to", hint=hint) from None


SILENT = "it took the connection and said nothing: busy, stopped, no daemon, or of another wire version (see its log)"
FOREIGN = "what listens there has another key than KEY, or is the daemon's bulk port, no daemon, or one that is ending"


class LinkLost(Exception):
    """The daemon at an endpoint is gone, or was never there. `refused`: it answers, but not to this key. `why`: where
    more is known than silence."""

    def __init__(self, refused: bool = False, why: str = "") -> None:
        super().__init__()
        self.refused, self.why = refused, why


class Client:
    """Asks the first daemon that answers, and stays with it until it is gone. Use as a context manager."""

    def __init__(self, endpoints: Sequence[KeyedEndpoint], keys: KeyPair) -> None:
        self._endpoints = list(endpoints)
        self._keys = keys
        self._context = zmq.Context()
        self._link: _Link | None = None
        self._next_id = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._unlink()
        self._context.destroy(linger=0)

    @property
    def id(self) -> NodeId:
        """What daemons call this client, by its key."""
        return node_id(parse_key(self._keys.public))

    @property
    def endpoints(self) -> tuple[KeyedEndpoint, ...]:
        """Every daemon known, the one that is asked first at the front."""
        return tuple(self._endpoints)

    def learn(self, endpoints: Iterable[KeyedEndpoint]) -> None:
        """Other daemons of the same mesh, to be asked when those known before are gone."""
        known = {endpoint.key for endpoint in self._endpoints}
        self._endpoints += [endpoint for endpoint in endpoints if endpoint.key not in known]

    def call(self, method: str, params: Mapping[str, Any] | None = None, deadline_s: float = 10.0) -> dict[str, Any]:
        """The answer's map. A request may reach two daemons, so methods must bear repetition (they do: ids follow
        from content, a submit carries a nonce). A daemon that has just joined may not know what others do, and says
        so: then these are asked. Raises CliError: of exit code 3 when no daemon answered, else as the daemon says."""
        packed = msgpack.packb(dict(params or {}))
        refused, asked, why = False, set[KeyedEndpoint](), ""
        unknown: list[CliError] = []
        while len(unknown) < ASKED_ON and (endpoint := next((it for it in self._endpoints if it not in asked), None)):
            asked.add(endpoint)
            try:
                response = self._ask(endpoint, method, packed, deadline_s)
                value: dict[str, Any] = msgpack.unpackb(response.value, strict_map_key=False)
                if response.ok:
                    return value
                if not value.get("elsewhere"):
                    raise _problem(value)
                unknown.append(_problem(value))
                if asked.issuperset(self._endpoints):
                    self._learn_from(endpoint)
            except LinkLost as lost:
                refused, why = refused or lost.refused, why or lost.why
                self._unlink()
            self._endpoints.append(self._endpoints.pop(self._endpoints.index(endpoint)))  # ask it last from now on
        raise unknown[0] if unknown else self._nobody(refused, why)

    def _learn_from(self, endpoint: KeyedEndpoint) -> None:
        response = self._ask(endpoint, "nodes", msgpack.packb({}), LINK_S)
        members = msgpack.unpackb(response.value).get("nodes", []) if response.ok else []
        self.learn(KeyedEndpoint(it["key"], it["control"]) for it in members if it["state"] == "alive" and it["key"])

    def _ask(self, endpoint: KeyedEndpoint, method: str, params: bytes, deadline_s: float) -> Response:
        if self._link is None or self._link.endpoint != endpoint:
            self._unlink()
            self._link = _Link(self._context, endpoint, self._keys)
        self._next_id += 1
        request = Request(self._next_id, method, params, deadline_s)
        return self._link.ask(request, deadline_s + GRACE_S)

    def _unlink(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None

    def _nobody(self, refused: bool, why: str) -> CliError:
        if refused:
            return CliError(
                "the daemon refuses this client's key",
                hint=f"put the line `{self._keys.public} NAME client` into the allow-list of the mesh",
                exit_code=EXIT_NO_DAEMON,
            )
        places = ", ".join(endpoint.address for endpoint in self._endpoints)
        return CliError(
            f"no daemon answered (asked: {places}{f'; {why}' if why else ''})",
            hint="start a mesh with `dflow up --nodes 3`, or name a living daemon with --to KEY@HOST:PORT",
            exit_code=EXIT_NO_DAEMON,
        )


class _Link:
    """A DEALER to one daemon, and the monitor of its connection."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: KeyedEndpoint, keys: KeyPair) -> None:
        self.endpoint = endpoint
        self._is_taken = self._up = False  # the connection, and with it the handshake
        self._socket = context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
        self._socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS)
        self._socket.setsockopt(zmq.CONNECT_TIMEOUT, int(LINK_S * 1000))
        self._monitor = self._socket.get_monitor_socket()
        try:
            self._socket.curve_serverkey = endpoint.key.encode()
            self._socket.curve_publickey = keys.public.encode()
            self._socket.curve_secretkey = keys.secret.encode()
            address = _numeric(endpoint)
            self._socket.ipv6 = "[" in address
            self._socket.connect(address)
        except LinkLost:
            self.close()
            raise
        except (zmq.ZMQError, ValueError) as error:
            self.close()
            raise CliError(f"`{endpoint}`: {error}", where="--to", hint="give KEY@HOST:PORT") from error
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._monitor, zmq.POLLIN)

    def ask(self, request: Request, patience_s: float) -> Response:
        """Raises LinkLost when the daemon is gone, or silent for longer than `patience_s` seconds."""
        self._connect(time.monotonic() + LINK_S)
        try:
            self._socket.send(encode_frame(None, (request,)), zmq.NOBLOCK)
        except zmq.Again:  # it was refused when it linked up again: there is no link to wait for
            raise LinkLost from None
        until = time.monotonic() + patience_s
        while True:
            self._wait(until)
            while self._socket.poll(0):
                for message in _messages(self._socket.recv_multipart()[-1]):
                    if isinstance(message, Response) and message.id == request.id:
                        return message

    def _connect(self, until: float) -> None:
        while not self._up:
            self._wait(until)

    def _wait(self, until: float) -> None:
        """Until something arrived; looks at the connection's events first."""
        left = until - time.monotonic()
        if left <= 0 or not self._poller.poll(math.ceil(left * 1000)):
            raise LinkLost(why=SILENT if self._is_taken else "")
        while self._monitor.poll(0):
            event = recv_monitor_message(self._monitor)["event"]
            if event == zmq.EVENT_CONNECTED:
                self._is_taken = True
            elif event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._up = True
            elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                raise LinkLost(refused=True)
            elif event in _FOREIGN:
                raise LinkLost(why=FOREIGN)
            elif event in _LOST and not self._socket.poll(0):
                raise LinkLost

    def close(self) -> None:
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close(0)


def _numeric(endpoint: KeyedEndpoint) -> str:
    """Where to dial. A name may stand for several addresses, of IPv4 and IPv6, and the daemon listen on one: it is the
    first that takes a connection. Raises LinkLost where none does."""
    place = parse_endpoint(endpoint.address)
    if place.is_numeric:
        return endpoint.address
    try:
        with socket.create_connection((place.host, place.port), LINK_S) as probe:
            host, port = probe.getpeername()[:2]
    except (OSError, UnicodeError) as error:
        raise LinkLost(why=f"{place.host}: {getattr(error, 'strerror', None) or error}") from None
    return Endpoint(host, port).url


def _messages(payload: bytes) -> tuple[Any, ...]:
    try:
        return decode_frame(payload).messages
    except WireError as error:
        raise CliError(
            f"a daemon answered in a way this client cannot read: {error}",
            hint="`dflow version` and the daemon's version must match",
            exit_code=EXIT_FAILED,
        ) from error


def _problem(value: Mapping[str, Any]) -> CliError:
    return CliError(
        str(value.get("what", "the daemon refused")),
        hint=str(value.get("hint", "")),
        exit_code=int(value.get("exit", EXIT_FAILED)),
    )
