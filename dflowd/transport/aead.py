"""How what CURVE does not protect is sealed: the bulk lane's messages, and frames that go through relays.

On the bulk lane AES-256-GCM, or on a trusted fabric a keyed BLAKE3 tag. A message is a head (asks or answers) and at
most one payload (chunks, each sealed by itself, so that it goes from its place to the message and from the message to
its place in one pass). Both directions of a session share one key; a nonce is the direction, head or payload, a chunk's
number in it, and the sender's counter, so none comes twice. Counters only grow, so what was recorded cannot be played
again.

On a trusted fabric nothing is secret, and chunks need no tag: they are checked against hashes that come in a head, and
those against the shard's id.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

import zmq
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .keys import KeyPair

COUNTER_BYTES = 8
TAG_BYTES = 16  # of AES-GCM; the keyed tag is cut to the same
NONCE_BYTES = 12
ENVELOPES = "frames through relays, dflowd 2026-11"  # what the keys are for (BLAKE3, derive_key)
MAX_PAIRS = 1_024  # whose keys are remembered
BUFFERS_KEPT = 16  # one fetcher's credit; more are made where many fetch at once, and not kept

_HEAD, _PAYLOAD = 0, 1

OpenChunk: TypeAlias = Callable[[memoryview], bool]
"""Writes a chunk that came to its place; whether it is one, of just that length. On a trusted fabric it may still be
anything: its hash is what counts."""


class AeadSession:
    """One end of a session. Not safe for threads."""

    def __init__(self, key: bytes, is_fetcher: bool, is_trusted: bool) -> None:
        self._key, self._is_trusted = key, is_trusted
        self._cipher = AESGCM(key)
        self._tag_bytes = 0 if is_trusted else TAG_BYTES  # behind each chunk
        self._mine, self._theirs = (0, 1) if is_fetcher else (1, 0)
        self._sent = self._received = 0

    @property
    def sends_chunks_as_they_lie(self) -> bool:
        """Whether a payload of one chunk needs no `seal_chunks`."""
        return self._is_trusted

    def seal_head(self, head: bytes) -> bytes:
        """The head of the next message, sealed."""
        self._sent += 1
        counter = self._sent.to_bytes(COUNTER_BYTES, "little")
        if self._is_trusted:
            return b"".join((counter, head, self._tag(self._mine, counter, head)))
        return counter + self._cipher.encrypt(_nonce(self._mine, _HEAD, 0, counter), head, None)

    def seal_chunks(self, chunks: Sequence[memoryview], buffer: bytearray) -> memoryview:
        """The payload that follows the head which was sealed last, in the first bytes of `buffer` or where it lies."""
        if self.sends_chunks_as_they_lie and len(chunks) == 1:
            return chunks[0]
        place, end = memoryview(buffer), 0
        counter = self._sent.to_bytes(COUNTER_BYTES, "little")
        for number, chunk in enumerate(chunks):
            begin, end = end, end + len(chunk) + self._tag_bytes
            if self._is_trusted:
                place[begin:end] = chunk
            else:
                self._cipher.encrypt_into(_nonce(self._mine, _PAYLOAD, number, counter), chunk, None, place[begin:end])
        return place[:end]

    def open_head(self, sealed: bytes | memoryview) -> bytes | None:
        """The head, if the peer made it, and after all that came before; else None."""
        if len(sealed) < COUNTER_BYTES + TAG_BYTES:
            return None
        counter = bytes(sealed[:COUNTER_BYTES])
        number = int.from_bytes(counter, "little")
        if number <= self._received:
            return None
        if self._is_trusted:
            head = bytes(sealed[COUNTER_BYTES:-TAG_BYTES])
            if self._tag(self._theirs, counter, head) != bytes(sealed[-TAG_BYTES:]):
                return None
        else:
            try:
                head = self._cipher.decrypt(_nonce(self._theirs, _HEAD, 0, counter), sealed[COUNTER_BYTES:], None)
            except InvalidTag:
                return None
        self._received = number
        return head

    def payload(self, sealed: memoryview) -> Payload:
        """What came with the head that was opened last, until the next one is."""
        return Payload(sealed, self._tag_bytes, self._open_chunk)

    def _open_chunk(self, number: int, sealed: memoryview, place: memoryview) -> bool:
        if len(sealed) != len(place) + self._tag_bytes:
            return False
        if self._is_trusted:
            place[:] = sealed
            return True
        nonce = _nonce(self._theirs, _PAYLOAD, number, self._received.to_bytes(COUNTER_BYTES, "little"))
        try:
            self._cipher.decrypt_into(nonce, sealed, None, place)
        except InvalidTag:
            return False
        return True

    def _tag(self, direction: int, counter: bytes, head: bytes) -> bytes:
        return blake3(_nonce(direction, _HEAD, 0, counter) + head, key=self._key).digest(TAG_BYTES)


class Payload:
    """Chunks that came one behind the other."""

    def __init__(self, sealed: memoryview, tag_bytes: int, open_chunk: Callable[[int, memoryview, memoryview], bool]):
        self._sealed, self._tag_bytes, self._open_chunk = sealed, tag_bytes, open_chunk
        self._begin = self._number = 0

    def next(self, nbytes: int) -> OpenChunk:
        """The next one, which the head says to be of so many bytes. Where there is none, it opens nothing."""
        end = self._begin + nbytes + self._tag_bytes
        opened = partial(self._open_chunk, self._number, self._sealed[self._begin : end])
        self._begin, self._number = end, self._number + 1
        return opened


class Outbound:
    """Memory for sealed payloads, which libzmq sends from where they lie: used again once it has. Fresh memory for each
    would cost four times what sealing it costs, in page faults alone. For one thread."""

    def __init__(self, nbytes: int) -> None:
        """`nbytes`: of each buffer, the most that is sealed at once."""
        self._nbytes = nbytes
        self._lent: list[tuple[zmq.MessageTracker, bytearray]] = []  # the first was lent first

    def take(self) -> bytearray:
        """One that nobody reads any more; to be lent next, or to be forgotten."""
        for at, (tracker, buffer) in enumerate(self._lent):
            if tracker.done:
                del self._lent[at]
                return buffer
        return bytearray(self._nbytes)

    def lend(self, buffer: bytearray, tracker: zmq.MessageTracker) -> None:
        """It is being sent; `tracker` says when that is over."""
        if len(self._lent) >= BUFFERS_KEPT:
            self.forget()
        self._lent.append((tracker, buffer))

    def forget(self) -> None:
        """Those that nobody reads any more."""
        self._lent = [each for each in self._lent if not each[0].done]


class Envelopes:
    """Frames of this node to members, and of members to it, that others pass on and must neither read nor make.

    The key of each direction is derived from the secret that two CURVE keys share (X25519), the nonce is drawn: of
    2**32 frames two have one with a chance of 2**-33. A relay may hold a frame back or pass it on twice, which a
    network may, too.
    """

    def __init__(self, keys: KeyPair) -> None:
        self._public, self._secret = keys.public, X25519PrivateKey.from_private_bytes(keys.secret)
        self._ciphers: dict[tuple[bytes, bool], AESGCM] = {}

    def close(self, to: bytes, frame: bytes) -> bytes:
        """For who has the other half of this public key. Raises ValueError for what is no key."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher(to, is_mine=True).encrypt(nonce, frame, None)

    def open(self, origin: bytes, sealed: bytes) -> bytes | None:
        """What who has the other half of this public key closed for this node; None for anything else."""
        try:
            return self._cipher(origin, is_mine=False).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], None)
        except (InvalidTag, ValueError):
            return None

    def _cipher(self, peer: bytes, is_mine: bool) -> AESGCM:
        known = self._ciphers.get((peer, is_mine))
        if known is None:
            while len(self._ciphers) >= 2 * MAX_PAIRS:
                del self._ciphers[next(iter(self._ciphers))]
            shared = self._secret.exchange(X25519PublicKey.from_public_bytes(peer))
            ends = self._public + peer if is_mine else peer + self._public
            known = self._ciphers[peer, is_mine] = AESGCM(blake3(shared + ends, derive_key_context=ENVELOPES).digest())
        return known


def _nonce(direction: int, part: int, number: int, counter: bytes) -> bytes:
    return bytes((direction, part)) + number.to_bytes(2, "little") + counter
