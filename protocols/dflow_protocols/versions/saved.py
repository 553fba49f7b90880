"""What a checkpoint folder says of itself: whose version it holds, and where in it each entry of the state lies.

Owns the text of the folder's `dflow.json`; reads and writes no file. The text names its own digest, so a reader sees
that it is whole; whether the other files hold what it says is seen by hashing them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from ..names import RunId, SealId, ShardId, ShardRef, SpecId, VersionId, content_id, is_what, is_who
from ..wire.steps import Header

FORMAT = 1
FILE = "dflow.json"


@dataclass(frozen=True, slots=True)
class Place:
    """Where the bytes of one entry lie: in this file of the folder, from this byte on."""

    file: str
    offset: int


@dataclass(frozen=True, slots=True)
class Saved:
    """One checkpoint. `places`: of each entry of the header's state, in its order."""

    run: RunId
    spec: SpecId
    plan_version: int
    name: str  # of the pipeline, for people
    header: Header
    places: tuple[Place, ...]


def write_saved(saved: Saved) -> str:
    """The text of `dflow.json`."""
    header = saved.header
    fields = {
        "format": FORMAT,
        "name": saved.name,
        "run": saved.run,
        "spec": saved.spec,
        "plan_version": saved.plan_version,
        "version": header.id,
        "parent": header.parent,
        "step": header.step,
        "samples": header.samples,
        "seal": header.seal,
        "facts": [list(fact) for fact in header.facts],
        **({"coefficients": [list(each) for each in header.coefficients]} if header.coefficients else {}),
        "state": [
            {
                "name": name,
                "id": ref.id,
                "bytes": ref.nbytes,
                "file": place.file,
                "offset": place.offset,
            }
            for (name, ref), place in zip(header.state, saved.places, strict=True)
        ],
    }
    return json.dumps({**fields, "digest": _digest(fields)}, indent=2) + "\n"


def read_saved(text: str) -> Saved:
    """Raises ValueError, with what is wrong, for a text that `write_saved` did not write or that was changed since."""
    try:
        fields = json.loads(text)
        digest = fields.pop("digest")
    except (ValueError, KeyError, AttributeError):
        raise ValueError(f"{FILE} is torn") from None
    if fields.get("format") != FORMAT:
        raise ValueError(f"{FILE} is of format {fields.get('format')!r}, this release reads {FORMAT}")
    if digest != _digest(fields):
        raise ValueError(f"{FILE} is not what was written: its digest is another")
    try:
        return _saved(fields)
    except (KeyError, TypeError, AttributeError):
        raise ValueError(f"{FILE} lacks what a checkpoint must say") from None


def _saved(fields: Mapping[str, Any]) -> Saved:
    entries = fields["state"]
    header = Header(
        VersionId(fields["parent"]) if fields["parent"] is not None else None,
        int(fields["step"]),
        int(fields["samples"]),
        SealId(fields["seal"]),
        tuple((entry["name"], ShardRef(ShardId(entry["id"]), int(entry["bytes"]))) for entry in entries),
        tuple((str(name), value) for name, value in fields["facts"]),
        tuple((str(stage), float(value)) for stage, value in fields.get("coefficients", ())),
    )
    places = tuple(Place(entry["file"], int(entry["offset"])) for entry in entries)
    saved = Saved(
        RunId(fields["run"]), SpecId(fields["spec"]), int(fields["plan_version"]), fields["name"], header, places
    )
    if any(PurePosixPath(place.file).is_absolute() or ".." in place.file for place in places):
        raise ValueError(f"{FILE} names files outside of its folder")
    if header.id != fields["version"] or not is_who(saved.run) or not is_what(saved.spec):
        raise ValueError(f"{FILE} names a version that its state does not make")
    return saved


def _digest(fields: Mapping[str, Any]) -> str:
    return content_id("checkpoint", json.dumps(fields, sort_keys=True))
