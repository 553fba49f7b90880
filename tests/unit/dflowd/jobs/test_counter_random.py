"""Random numbers that follow from names: the published generator, in any batch."""

from __future__ import annotations

import numpy as np
import pytest

from dflowd.jobs.counter_random import number, philox, stream, uniforms


def words(*values: int) -> list[np.ndarray]:
    return [np.array(value, np.uint64) for value in values]


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_it_is_the_published_generator(
    counter: tuple[int, ...], key: tuple[int, int], expected: tuple[int, ...]
) -> None:
    """Known answers of Random123: quality was tested by others, so it must be theirs."""
    key_bytes = b"".join(word.to_bytes(4, "little") for word in key)
    c0, c1, c2, c3 = words(*counter)
    assert tuple(int(word) for word in philox(key_bytes, (c0, c1, c2, c3))) == expected


def test_a_number_does_not_depend_on_what_is_drawn_beside_it() -> None:
    """A completion sampled alone, or by a thief, gets the numbers that it would have had in its batch."""
    groups, samples, tokens = (np.arange(n, dtype=np.uint64) for n in (3, 4, 5))
    block = uniforms(b"12345678", groups[:, None, None], samples[None, :, None], tokens[None, None])
    alone = uniforms(b"12345678", groups[2], samples[1], tokens[4:])
    assert block.shape == (3, 4, 5)
    assert block[2, 1, 4] == alone[0]
    assert len(np.unique(block)) == block.size
    assert ((block > 0) & (block < 1)).all()


def test_names_decide() -> None:
    """Where one name ends and the next begins is part of them."""
    assert number("a", "bc") != number("ab", "c")
    assert number("a", 1) == number("a", 1)
    assert np.array_equal(stream(b"12345678", 7), stream(b"12345678", 9)[:7])
