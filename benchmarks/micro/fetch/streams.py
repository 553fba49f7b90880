"""One stream over loopback, asked for pieces: TCP as it is, or under Python's TLS 1.3.

Who asks keeps as many asks under way as it is told; who answers sends all of a piece from one buffer. Nothing is
verified beyond what TLS does. `python -m benchmarks.micro.fetch.streams tcp|tls`.
"""

from __future__ import annotations

import datetime
import os
import socket
import ssl
import struct
import sys
import tempfile
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from benchmarks.micro.fetch.way import BUFFER_BYTES, Sample, answer_lines, fetch_in_order

ASK = struct.Struct("!Q")  # the bytes of a piece
NAME = "localhost"


class Stream:
    """The asking end; the other one is a fork of this process."""

    def __init__(self, is_tls: bool) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener, tempfile.TemporaryDirectory() as folder:
            certificate = Path(folder) / "certificate"
            if is_tls:
                write_certificate(certificate)
            self._answerer = os.fork()
            if self._answerer == 0:
                answer(listener, certificate if is_tls else None)
                os._exit(0)
            link: socket.socket = socket.create_connection(listener.getsockname())
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if is_tls:
                context = ssl.create_default_context(cafile=str(certificate))
                context.minimum_version = ssl.TLSVersion.TLSv1_3
                link = context.wrap_socket(link, server_hostname=NAME)
        self._link, self._buffer = link, memoryview(bytearray(BUFFER_BYTES))

    def fetch(self, nbytes: int, at_once: int, seconds: float) -> Sample:
        ends = os.getpid(), self._answerer
        return fetch_in_order(self._ask, self._receive, ends, nbytes, at_once, seconds)

    def close(self) -> None:
        self._link.close()
        os.waitpid(self._answerer, 0)

    def _ask(self, nbytes: int) -> None:
        self._link.sendall(ASK.pack(nbytes))

    def _receive(self, nbytes: int) -> None:
        at = 0
        while at < nbytes:
            got = self._link.recv_into(self._buffer[at:nbytes])
            if not got:
                raise ConnectionError("the other end has closed the stream")
            at += got


def answer(listener: socket.socket, certificate: Path | None) -> None:
    """Send what the one that connects asks for, until it closes the stream."""
    link, _ = listener.accept()
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        link = context.wrap_socket(link, server_side=True)
    data = memoryview(bytearray(BUFFER_BYTES))
    while ask := link.recv(ASK.size):
        while len(ask) < ASK.size:
            ask += link.recv(ASK.size - len(ask))
        link.sendall(data[: ASK.unpack(ask)[0]])


def write_certificate(path: Path) -> None:
    """Of a fresh key, signed by itself, for an hour; the key lies beside it."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    encodings = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path.write_bytes(key.private_bytes(*encodings) + made.public_bytes(serialization.Encoding.PEM))


if __name__ == "__main__":
    answer_lines(Stream(sys.argv[1] == "tls"))
