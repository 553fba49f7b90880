"""A run's list of files, and what it may hold, so that any status fits into a frame.

The longest spec and outcome take 2 MiB of its 4, a roster of 16,384 members 1.3. The texts of a list have at most
MAX_CHARACTERS, which are 512 KiB of the widest; all else of MAX_FILES takes less than 100.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ..names import MAX_SHARD_BYTES, ShardRef

MAX_FILES: Final = 1_024
MAX_NAME: Final = 1_024  # characters
MAX_KEY: Final = 256  # characters
MAX_CHARACTERS: Final = 1 << 17  # of all names and keys of a list


@dataclass(frozen=True, slots=True)
class FileRef:
    """A file that a run's works open.

    key: the spec's key that names it first, such as `models.policy.path`. name: as engines open it, in the spec's way:
    from the spec's folder, or absolute, with `/`; a folder is each file of it by its own name. ref: its content, as a
    shard.
    """

    key: str
    name: str
    ref: ShardRef


def listing_fault(files: Sequence[FileRef]) -> str:
    """What is wrong with a list of files, in words; empty if nothing is."""
    if len(files) > MAX_FILES:
        return f"{len(files)} files, more than {MAX_FILES}"
    for file in files:
        if not 1 <= len(file.name) <= MAX_NAME or "\0" in file.name:
            return f"a name of {len(file.name)} characters: 1 to {MAX_NAME} are allowed, and no NUL"
        if len(file.key) > MAX_KEY:
            return f"a key of {len(file.key)} characters, more than {MAX_KEY}"
        if file.ref.nbytes > MAX_SHARD_BYTES:
            return f"a file of {file.ref.nbytes} bytes, more than {MAX_SHARD_BYTES}"
    characters = sum(len(file.name) + len(file.key) for file in files)
    if characters > MAX_CHARACTERS:
        return f"names and keys of {characters} characters together, more than {MAX_CHARACTERS}"
    return ""
