"""What the bulk lane's sealing promises, on both kinds of fabric."""

from __future__ import annotations

import os

import pytest

from dflowd.transport.aead import BUFFERS_KEPT, TAG_BYTES, AeadSession, Envelopes, Outbound
from dflowd.transport.keys import new_key_pair

KEY = bytes(range(32))


def pair(is_trusted: bool) -> tuple[AeadSession, AeadSession]:
    return AeadSession(KEY, is_fetcher=True, is_trusted=is_trusted), AeadSession(
        KEY, is_fetcher=False, is_trusted=is_trusted
    )


@pytest.mark.parametrize("is_trusted", [False, True])
def test_heads_and_payloads_arrive_as_they_were_sent(is_trusted: bool) -> None:
    """Both ways, over one key."""
    fetcher, holder = pair(is_trusted)
    for number in range(3):
        assert holder.open_head(fetcher.seal_head(b"ask %d" % number)) == b"ask %d" % number
        chunks = [memoryview(os.urandom(length)) for length in (5000, 0, 70)][: number + 1]
        head, sealed = holder.seal_head(b"answer"), holder.seal_chunks(chunks, bytearray(6000))
        assert fetcher.open_head(head) == b"answer"
        payload, places = fetcher.payload(sealed), [bytearray(len(chunk)) for chunk in chunks]
        assert all(payload.next(len(place))(memoryview(place)) for place in places)
        assert places == chunks


@pytest.mark.parametrize("is_trusted", [False, True])
def test_what_was_recorded_cannot_be_played_again_or_back(is_trusted: bool) -> None:
    """An eavesdropper's only tools are old bytes."""
    fetcher, holder = pair(is_trusted)
    first, second = fetcher.seal_head(b"one"), fetcher.seal_head(b"two")
    assert fetcher.open_head(first) is None
    assert holder.open_head(second) == b"two"
    assert holder.open_head(second) is None
    assert holder.open_head(first) is None


@pytest.mark.parametrize("is_trusted", [False, True])
@pytest.mark.parametrize("at", [0, 8, 12, -1])
def test_a_changed_head_is_nobodys(is_trusted: bool, at: int) -> None:
    """Counter, content and tag are all covered; and what is refused does not use the counter up."""
    fetcher, holder = pair(is_trusted)
    sealed = fetcher.seal_head(b"please send")
    changed = bytearray(sealed)
    changed[at] ^= 1
    assert holder.open_head(bytes(changed)) is None
    assert holder.open_head(b"") is None
    assert holder.open_head(sealed) == b"please send"


def test_a_sealed_payload_shows_nothing_and_cannot_be_changed_or_moved() -> None:
    """On an encrypted fabric a chunk belongs to the one head that announced it, and to its place behind that."""
    fetcher, holder = pair(is_trusted=False)
    chunk, length = memoryview(bytes(1000)), 1000 + TAG_BYTES
    heads, payloads = [], []
    for _ in range(2):
        heads.append(holder.seal_head(b"answer"))
        payloads.append(bytes(holder.seal_chunks([chunk, chunk], bytearray(2 * length))))
    first, second = payloads[0][:length], payloads[0][length:]
    assert len({first, second, payloads[1][:length], payloads[1][length:]}) == 4
    assert bytes(100) not in payloads[0]
    fetcher.open_head(heads[0])

    def opens(sealed: bytes) -> list[bool]:
        payload = fetcher.payload(memoryview(sealed))
        return [payload.next(1000)(memoryview(bytearray(1000))) for _ in range(2)]

    assert opens(payloads[1]) == [False, False]
    assert opens(second + first) == [False, False]
    assert opens(first + second[:-1]) == [True, False]
    assert opens(first) == [True, False]
    assert opens(payloads[0]) == [True, True]


def test_no_two_things_are_sealed_under_one_nonce() -> None:
    """Of two, who listens would read the one by the other, and could forge any: of the same text the same cipher's text
    shows it."""
    seen = set()
    for end in pair(is_trusted=False):
        for _ in range(2):
            head, length = end.seal_head(bytes(32))[-32 - TAG_BYTES :], 32 + TAG_BYTES
            payload = bytes(end.seal_chunks([memoryview(bytes(32))] * 2, bytearray(2 * length)))
            seen |= {head[:32], payload[:32], payload[length:][:32]}
    assert len(seen) == 2 * 2 * 3


@pytest.mark.parametrize("is_trusted", [False, True])
def test_a_chunk_that_nobody_waits_for_any_more_is_passed_over(is_trusted: bool) -> None:
    """It was dropped while it was on its way, and what came with it was not."""
    fetcher, holder = pair(is_trusted)
    head, sealed = (
        holder.seal_head(b"answer"),
        holder.seal_chunks([memoryview(b"one"), memoryview(b"two")], bytearray(99)),
    )
    fetcher.open_head(head)
    payload, place = fetcher.payload(sealed), bytearray(3)
    payload.next(3)
    assert payload.next(3)(memoryview(place))
    assert place == b"two"
    assert not payload.next(3)(memoryview(place)), "there is no third one"


def test_a_frame_through_relays_is_read_and_made_by_its_two_ends_alone() -> None:
    """A relay is a member, and yet it must not speak under another one's id."""
    one, other, relay = new_key_pair(), new_key_pair(), new_key_pair()
    sealed = Envelopes(one).close(other.public, b"a frame")
    assert Envelopes(other).open(one.public, sealed) == b"a frame"
    assert Envelopes(relay).open(one.public, sealed) is None
    assert Envelopes(other).open(one.public, Envelopes(relay).close(other.public, b"forged")) is None
    assert Envelopes(one).open(other.public, sealed) is None, "sent back, it is none of the other's"
    assert Envelopes(other).open(one.public, sealed[:-1] + bytes((sealed[-1] ^ 1,))) is None
    for nonsense in (b"", b"short", os.urandom(64)):
        assert Envelopes(other).open(one.public, nonsense) is None
    assert Envelopes(other).open(bytes(32), sealed) is None, "a key of zeros shares no secret"


class Sending:
    """As libzmq's tracker says it."""

    done = False


def lend(outbound: Outbound) -> tuple[bytearray, Sending]:
    buffer, sending = outbound.take(), Sending()
    outbound.lend(buffer, sending)  # type: ignore[arg-type]
    return buffer, sending


def test_a_buffer_is_used_again_once_it_is_sent_and_not_before() -> None:
    """A chunk would go out with another one's bytes in it, and its receiver take the holder for a liar."""
    outbound = Outbound(8)
    first, sending = lend(outbound)
    second, _ = lend(outbound)
    assert second is not first
    sending.done = True
    assert outbound.take() is first
    assert outbound.take() is not second


def test_what_many_fetchers_took_at_once_is_not_kept() -> None:
    """Each buffer is a chunk's length, and a moment with twenty fetchers comes seldom."""
    outbound = Outbound(8)
    taken = [lend(outbound) for _ in range(4 * BUFFERS_KEPT)]
    for _, sending in taken:
        sending.done = True
    last, _ = lend(outbound)
    lend(outbound)
    kept = {id(outbound.take()) for _ in range(4 * BUFFERS_KEPT)} & {id(buffer) for buffer, _ in taken}
    assert len(kept) <= BUFFERS_KEPT
    assert any(last is buffer for buffer, _ in taken)


def test_who_answers_nobody_for_a_while_keeps_no_buffers() -> None:
    """The last to be served may have been thirty nodes at once, with half a GB on its way to them."""
    outbound = Outbound(8)
    taken = [lend(outbound) for _ in range(4 * BUFFERS_KEPT)]
    for _, sending in taken[1:]:
        sending.done = True
    outbound.forget()
    assert not any(outbound.take() is buffer for buffer, _ in taken)
    taken[0][1].done = True
    assert outbound.take() is taken[0][0], "what was still on its way is not forgotten"
