"""Outputs that come along with their records, on the wire."""

from __future__ import annotations

import pytest

from dflow_protocols.names import RunId, ShardId, ShardRef
from dflow_protocols.wire.books import MOST_SHORT, MOST_SHORT_BYTES
from dflow_protocols.wire.codec import decode, encode
from dflow_protocols.wire.fields import WireError
from dflow_protocols.wire.steps import OutputsPut
from dflow_protocols.work import ChainWork, is_short

SHARD = ShardId("0b" * 32)
ONE = MOST_SHORT_BYTES // MOST_SHORT


def outputs_put(count: int, nbytes: int) -> OutputsPut:
    return OutputsPut(RunId("0a" * 16), ((SHARD, bytes(nbytes)),) * count)


@pytest.mark.parametrize(
    ("count", "nbytes", "words"),
    [
        (MOST_SHORT + 1, 0, "65 outputs, more than 64"),
        (1, MOST_SHORT_BYTES + 1, "16385 bytes together, more than 16384"),
        (MOST_SHORT, ONE + 1, "16448 bytes together, more than 16384"),
    ],
)
def test_outputs_beyond_their_bounds_are_not_sent_and_are_refused(count: int, nbytes: int, words: str) -> None:
    """A member could have each frame that it sends kept whole, until the turn ends in which the receiver acts."""
    with pytest.raises(WireError, match=rf"outputs_put\.outputs: {words}"):
        decode(encode(outputs_put(count, nbytes)))
    assert not is_short(ChainWork(0, ("roll",), 0, ()), [ShardRef(SHARD, nbytes)] * count)


@pytest.mark.parametrize(("count", "nbytes"), [(0, 0), (1, MOST_SHORT_BYTES), (MOST_SHORT, ONE)])
def test_whatever_is_short_may_be_sent(count: int, nbytes: int) -> None:
    """What one end takes for short and the other refuses would cost its whole frame, again and again."""
    put = outputs_put(count, nbytes)
    assert is_short(ChainWork(0, ("roll",), 0, ()), [ShardRef(SHARD, nbytes)] * count)
    assert decode(encode(put)) == put
