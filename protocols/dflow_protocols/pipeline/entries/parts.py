"""The files that a key of a data set names: one, those of a folder, or those whose names fit a pattern."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Protocol

from .problem import EntryError

FORMATS = ("jsonl", "csv", "parquet", "arrow")
"""Keys of a data set that name files; a file in a folder is of a format if its name ends so."""

SPLITS = ("train", "training", "test", "testing", "validation", "valid", "val", "dev", "eval")
"""What the parts of a data set are called that are not meant to be read as one."""

SAVED_ORDER = "state.json"  # of a data set that `datasets` saved: its files, in order


class Folder(Protocol):
    """A spec's folder. Names are as in the spec: from the folder, or absolute; with `/` between their parts."""

    def names(self, name: str) -> Sequence[str] | None:
        """All files in a folder of it, at any depth, by their names from there; None where there is no such folder."""

    def read(self, name: str) -> bytes | memoryview | None:
        """What a file holds; None where there is no such file. Raises OSError for one that cannot be read."""


def format_of(source: object) -> str | None:
    """The key by which a data set names files; None for one that has none. `source`: of a spec's `data` section."""
    return next((kind for kind in FORMATS if isinstance(source, dict) and kind in source), None)


def is_one_file(name: str, folder: Folder) -> bool:
    """Whether the name is that of a file, and no folder and no pattern."""
    return folder.read(name) is not None


def parts_of(kind: str, name: str, folder: Folder) -> list[str]:
    """The files, in the order in which they are read; empty where there are none. Raises EntryError where a folder
    holds what is not meant to be read as one."""
    if is_one_file(name, folder):
        return [name]
    above, _, last = name.rstrip("/").rpartition("/")
    if "*" in last:
        names = folder.names(above or ".") or ()
        found = sorted(each for each in names if "/" not in each and fnmatchcase(each, last))
        return [f"{above}/{each}" if above else each for each in found]
    names = folder.names(name) or ()
    shown = [each for each in names if not any(part.startswith(".") for part in each.split("/"))]
    found = _saved(name, shown, folder) or sorted(each for each in shown if each.endswith(f".{kind}"))
    _require_one_split(kind, name, found)
    return [f"{name.rstrip('/')}/{each}" for each in found]


def _saved(name: str, names: Sequence[str], folder: Folder) -> list[str]:
    """The files that `datasets` saved a data set in, by its own list of them: others beside them are its caches."""
    if SAVED_ORDER not in names:
        return []
    try:
        listed = json.loads(bytes(folder.read(f"{name.rstrip('/')}/{SAVED_ORDER}") or b""))["_data_files"]
        return [str(each["filename"]) for each in listed if str(each["filename"]) in names]
    except (ValueError, KeyError, TypeError):
        return []


def _require_one_split(kind: str, name: str, files: Sequence[str]) -> None:
    """Nobody means to train on what is there to test by."""
    found: dict[str, str] = {}
    for file in files:
        split, pattern = _split_of(kind, file)
        found.setdefault(split, f"{name.rstrip('/')}/{pattern}")
    splits = [split for split in SPLITS if split in found]
    if len(splits) > 1:
        what = f"{name} holds several splits: {', '.join(splits)}"
        raise EntryError(what, f"name the one that is meant, such as `{kind}: {found[splits[0]]}`")


def _split_of(kind: str, file: str) -> tuple[str, str]:
    """The split that a file is of, by a word of its own name or else of a folder's, such as `data/train-0.csv` or
    `main/train/0.csv`; and what names the files of it. Empty texts where no name says."""
    names = file.split("/")
    for depth in reversed(range(len(names))):
        words = [word for word in re.finditer("[a-z]+", names[depth].lower()) if word.group() in SPLITS]
        if len(words) == 1:
            is_folder = depth < len(names) - 1
            last = names[depth] if is_folder else f"{names[depth][: words[0].end()]}*.{kind}"
            return words[0].group(), "/".join([*names[:depth], last])
    return "", ""
