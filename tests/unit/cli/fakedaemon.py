"""A stand-in for a daemon that speaks the real wire (CURVE, frames, requests) and answers from a table.

It exists so that the command line can be tested against answers of every kind, also those that a mesh gives rarely.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

import msgpack
import zmq

from dflow_cli.mesh.client import KeyedEndpoint, KeyPair
from dflow_protocols.wire.client import Request, Response
from dflow_protocols.wire.frame import decode_frame, encode_frame

RUN = "3f9c12ab" * 4


def told_run(**changes: Any) -> dict[str, Any]:
    """A daemon's answer to `run` and `wait`: a finished run, but for `changes`."""
    return {
        "run": RUN,
        "name": "toy",
        "state": "finished",
        "step": 6,
        "steps": 6,
        "nodes": 3,
        "weights": "ab" * 32,
        "version": "cd" * 32,
        "evals": [{"step": 6, "accuracy": 0.95, "count": 100}, {"step": 2, "accuracy": 0.4, "count": 100}],
        "checkpoint": {},
        "wall_s": 12.5,
        "spec": b"{}",
    } | changes


def told_rows(count: int) -> list[dict[str, Any]]:
    return [
        {
            "step": step,
            "time_s": float(step),
            "reward_mean": step / count,
            "reward_std": 0.1,
            "loss": 1.0,
            "tokens_per_s": 900.0,
            "step_s": 0.5,
            "mesh_s": 0.04,
            "compute_s": 1.1,
            "idle_frac": 0.1,
            "seconds": {"roll": 0.3, "learn": 0.8},
            **({"accuracy": 0.5} if step % 2 == 0 else {}),
        }
        for step in range(1, count + 1)
    ]


Answer = Callable[[dict[str, Any]], Mapping[str, Any]]


class Refusal(Exception):
    """Makes the daemon answer with an error: {what, hint, exit, elsewhere}."""

    def __init__(self, what: str, hint: str, exit_code: int, elsewhere: bool = False) -> None:
        super().__init__(what)
        self.value = {"what": what, "hint": hint, "exit": exit_code, "elsewhere": elsewhere}


def new_keys() -> KeyPair:
    public, secret = zmq.curve_keypair()
    return KeyPair(public.decode(), secret.decode())


class FakeDaemon:
    """`answers`: method -> function of the params. `asked`: (method, params) of every request, in order.

    A method that is missing is never answered, as if the daemon hung.
    """

    def __init__(self, answers: Mapping[str, Answer], host: str = "127.0.0.1") -> None:
        self.answers = dict(answers)
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.dies_when_asked = False
        self._keys = new_keys()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.curve_server = True
        self._socket.curve_publickey = self._keys.public.encode()
        self._socket.curve_secretkey = self._keys.secret.encode()
        self._socket.ipv6 = "[" in host
        port = self._socket.bind_to_random_port(f"tcp://{host}")
        self.endpoint = KeyedEndpoint(self._keys.public, f"tcp://{host}:{port}")
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.die()

    def die(self) -> None:
        """Close every connection and the port, as the end of the process would."""
        self._ends.set()
        self._thread.join()

    def member(self, name: str, state: str = "alive") -> dict[str, Any]:
        """This daemon as an answer of `nodes` lists it."""
        return {
            "id": "0" * 32,
            "name": name,
            "state": state,
            "key": self.endpoint.key,
            "control": self.endpoint.address,
            "bulk": "",
        }

    def _serve(self) -> None:
        while not self._ends.is_set():
            if not self._socket.poll(20):
                continue
            peer, payload = self._socket.recv_multipart()
            for request in decode_frame(payload).messages:
                assert isinstance(request, Request)
                self._answer(peer, request)
        self._socket.close(0)
        self._context.term()

    def _answer(self, peer: bytes, request: Request) -> None:
        params = msgpack.unpackb(request.params)
        self.asked.append((request.method, params))
        if self.dies_when_asked:
            self._ends.set()
            return
        answer = self.answers.get(request.method)
        if answer is None:
            return
        try:
            response = Response(request.id, True, msgpack.packb(answer(params)))
        except Refusal as refusal:
            response = Response(request.id, False, msgpack.packb(refusal.value))
        self._socket.send_multipart([peer, encode_frame(None, (response,))])
