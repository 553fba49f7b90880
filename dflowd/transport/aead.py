"""How the bulk lane's messages are sealed: AES-256-GCM, or on a trusted fabric a keyed BLAKE3 tag.

A message is a head (asks or answers) and at most one payload (a chunk). Both directions of a session share one key;
a nonce is the direction, head or payload, and the sender's counter, so none comes twice. Counters only grow, so what
was recorded cannot be played again.

On a trusted fabric nothing is secret, and the payload needs no tag: a chunk is checked against hashes that come in a
head, and those against the shard's id.
"""

from __future__ import annotations

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

COUNTER_BYTES = 8
TAG_BYTES = 16  # of AES-GCM; the keyed tag is cut to the same

_HEAD, _PAYLOAD = 0, 1


class AeadSession:
    """One end of a session. Not safe for threads."""

    def __init__(self, key: bytes, is_fetcher: bool, is_trusted: bool) -> None:
        self._key, self._is_trusted = key, is_trusted
        self._cipher = AESGCM(key)
        self._mine, self._theirs = (0, 1) if is_fetcher else (1, 0)
        self._sent = self._received = 0

    @property
    def sends_payloads_as_they_lie(self) -> bool:
        """Whether `seal_payload` gives its argument back, not a copy."""
        return self._is_trusted

    def seal_head(self, head: bytes) -> bytes:
        """The head of the next message, sealed."""
        self._sent += 1
        counter = self._sent.to_bytes(COUNTER_BYTES, "little")
        if self._is_trusted:
            return b"".join((counter, head, self._tag(self._mine, counter, head)))
        return counter + self._cipher.encrypt(_nonce(self._mine, _HEAD, counter), head, None)

    def seal_payload(self, chunk: memoryview) -> bytes | memoryview:
        """The payload that follows the head which was closed last."""
        if self._is_trusted:
            return chunk
        counter = self._sent.to_bytes(COUNTER_BYTES, "little")
        return self._cipher.encrypt(_nonce(self._mine, _PAYLOAD, counter), chunk, None)

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
                head = self._cipher.decrypt(_nonce(self._theirs, _HEAD, counter), sealed[COUNTER_BYTES:], None)
            except InvalidTag:
                return None
        self._received = number
        return head

    def open_payload(self, sealed: memoryview, place: memoryview) -> bool:
        """Write the payload after the head that was opened last to `place`; whether it is one, of just that length.

        On a trusted fabric it may still be anything: its hash is what counts.
        """
        if len(sealed) != len(place) + (0 if self._is_trusted else TAG_BYTES):
            return False
        if self._is_trusted:
            place[:] = sealed
            return True
        nonce = _nonce(self._theirs, _PAYLOAD, self._received.to_bytes(COUNTER_BYTES, "little"))
        try:
            self._cipher.decrypt_into(nonce, sealed, None, place)
        except InvalidTag:
            return False
        return True

    def _tag(self, direction: int, counter: bytes, head: bytes) -> bytes:
        return blake3(_nonce(direction, _HEAD, counter) + head, key=self._key).digest(TAG_BYTES)


def _nonce(direction: int, part: int, counter: bytes) -> bytes:
    return bytes((direction, part, 0, 0)) + counter
