"""A model's folder in bfloat16: its safetensors files rounded to nearest, ties to even, as every library does it.

A client has no numpy: a chunk of float32 numbers is one long integer, whose lanes of 32 bits are rounded together. Half
of a bfloat16's last place, less one, and that last place itself are added; a carry leaves a lane only from numbers that
are none. Their upper halves are the result.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, BinaryIO

from dflow_protocols.versions.saved import FILE

from ..errors import EXIT_FAILED, CliError

CHUNK = 1 << 16  # bytes rounded at once: longer integers leave the cache
_ONES = int.from_bytes(b"\1\0\0\0" * (CHUNK // 4), "little")
_ALMOST_HALVES = _ONES * 0x7FFF


def round_folder(folder: Path) -> None:
    """All tensors of float32 in the folder's models become bfloat16, in place; what only a run can read goes.

    Raises CliError where there is no model, or one that cannot be read.
    """
    models = sorted(folder.rglob("*.safetensors"))
    if not models:
        raise CliError("its checkpoint has no model to round", hint="leave `--dtype` out")
    for file in models:
        try:
            _round_file(file)
        except (ValueError, KeyError, TypeError) as error:
            raise CliError(f"{file.name} is no safetensors file: {error}", exit_code=EXIT_FAILED) from error
    for place in (*folder.rglob("config.json"), *folder.rglob("*.safetensors.index.json")):
        _tell(place)
    for place in (folder / FILE, *folder.rglob("params-*.f32")):
        place.unlink(missing_ok=True)


def rounded(numbers: bytes) -> bytes:
    """bfloat16 of float32 numbers, both little-endian, at most CHUNK bytes."""
    lanes = int.from_bytes(numbers, "little")
    ones = _ONES & ((1 << 8 * len(numbers)) - 1)
    lanes += (_ALMOST_HALVES & ((1 << 8 * len(numbers)) - 1)) + ((lanes >> 16) & ones)
    whole = lanes.to_bytes(len(numbers) + 1, "little")  # a number that is none may carry out of the last lane
    halves = bytearray(len(numbers) // 2)
    halves[0::2], halves[1::2] = whole[2:-1:4], whole[3:-1:4]
    return bytes(halves)


def _round_file(file: Path) -> None:
    draft = file.with_name(f".{file.name}")
    with file.open("rb") as source, draft.open("wb") as out:
        length = int.from_bytes(source.read(8), "little")
        if length > file.stat().st_size:
            raise ValueError(f"its header has {length} bytes")
        header = json.loads(source.read(length))
        start = source.tell()
        told, at, tensors = dict(header), 0, []
        for name, tensor in sorted(header.items(), key=lambda item: item[1].get("data_offsets", [0])):
            if "data_offsets" not in tensor:
                continue  # `__metadata__`
            first, end = tensor["data_offsets"]
            is_wide = tensor["dtype"] == "F32"
            nbytes = (end - first) // 2 if is_wide else end - first
            told[name] = {**tensor, "data_offsets": [at, at + nbytes], "dtype": "BF16" if is_wide else tensor["dtype"]}
            tensors.append((start + first, end - first, is_wide))
            at += nbytes
        text = json.dumps(told, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        out.write(len(text).to_bytes(8, "little") + text)
        for place, nbytes, is_wide in tensors:
            source.seek(place)
            _copy(source, out, nbytes, is_wide)
        out.flush()
        os.fsync(out.fileno())
    draft.replace(file)


def _copy(source: BinaryIO, out: BinaryIO, nbytes: int, is_wide: bool) -> None:
    for at in range(0, nbytes, CHUNK):
        piece = source.read(min(CHUNK, nbytes - at))
        out.write(rounded(piece) if is_wide else piece)


def _tell(place: Path) -> None:
    """What a folder's files say of its numbers."""
    facts: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
    if place.name == "config.json":
        facts.pop("torch_dtype", None)  # the key's name before transformers 5
        facts["dtype"] = "bfloat16"
    else:
        files = {place.parent / file for file in facts["weight_map"].values()}
        facts.setdefault("metadata", {})["total_size"] = sum(_data_bytes(file) for file in files)
    place.write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _data_bytes(file: Path) -> int:
    with file.open("rb") as source:
        return file.stat().st_size - 8 - int.from_bytes(source.read(8), "little")
