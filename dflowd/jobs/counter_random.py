"""Random numbers as a function of names: what is drawn for a token depends on nothing that was drawn before.

Philox4x32-10 (Salmon et al., SC 2011) under a key hashed from names (spec, step, stage), counted by (token, sample,
group): a completion gets the same numbers in whatever batch, on whatever node, after whatever restart.
"""

from __future__ import annotations

from hashlib import blake2b

import msgpack
import numpy as np
import numpy.typing as npt

_MULTIPLY = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_ROUNDS = 10

Words = npt.NDArray[np.uint64]


def digest(*names: str | int | bytes, size: int = 8) -> bytes:
    """`size` bytes (at most 64) that follow from the names alone."""
    return blake2b(msgpack.packb(list(names), use_bin_type=True), digest_size=size).digest()


def number(*names: str | int | bytes) -> int:
    """An integer in [0, 2^64) that follows from the names alone."""
    return int.from_bytes(digest(*names), "little")


def philox(key: bytes, counters: tuple[Words, Words, Words, Words]) -> tuple[Words, Words, Words, Words]:
    """Ten rounds over counters of 32 bits each, in uint64 arrays that broadcast; `key` is 8 bytes."""
    keys = [int.from_bytes(key[:4], "little"), int.from_bytes(key[4:8], "little")]
    c0, c1, c2, c3 = counters
    for turn in range(_ROUNDS):
        k0, k1 = ((word + turn * step) & 0xFFFFFFFF for word, step in zip(keys, _WEYL, strict=True))
        p0, p1 = c0 * _MULTIPLY[0], c2 * _MULTIPLY[1]
        c0, c1 = (p1 >> _SHIFT) ^ c1 ^ np.uint64(k0), p1 & _LOW
        c2, c3 = (p0 >> _SHIFT) ^ c3 ^ np.uint64(k1), p0 & _LOW
    return c0, c1, c2, c3


def uniforms(key: bytes, groups: Words, samples: Words, tokens: Words) -> npt.NDArray[np.float64]:
    """One number in (0, 1) for each (group, sample, token), of the shape that the three broadcast to."""
    zero = np.zeros((), np.uint64)
    high, low, _, _ = philox(key, (tokens, samples, groups, zero))
    bits = (high << np.uint64(20)) | (low >> np.uint64(12))  # 52 bits, so that the half below is exact
    return (np.asarray(bits).astype(np.float64) + 0.5) * 2.0**-52


def stream(key: bytes, count: int) -> npt.NDArray[np.float32]:
    """`count` numbers in (-1, 1), float32: the same on every machine, since nothing but integers is rounded."""
    at = np.arange(-(-count // 4), dtype=np.uint64)
    zero = np.zeros((), np.uint64)
    words = np.stack(np.broadcast_arrays(*philox(key, (at & _LOW, at >> _SHIFT, zero, zero))), 1).reshape(-1)[:count]
    return ((words >> np.uint64(8)).astype(np.float32) + np.float32(0.5)) * np.float32(2.0**-23) - np.float32(1)
