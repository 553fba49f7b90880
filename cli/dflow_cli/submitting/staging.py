"""Before a run is submitted its files are seen to lie where they are needed: what hosts lack is sent to one of them,
and they fetch it from each other.

A run may lose any host, so its files lie on two before it counts as submitted. Models are large: they go with
`dflow push` only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dflow_protocols.pipeline.files import is_code, is_model
from dflow_protocols.wire.listing import FileRef

from ..errors import EXIT_FAILED, CliError
from ..mesh.client import Client
from ..output import amount, note

COPIES = 2  # hosts that have a run's files before it is submitted
PIECE_BYTES = 1 << 20  # sent at once; a request holds at most two
LOCATE_S = 90.0  # for hosts to read large files once
TOLD_AFTER_S = 3.0
STILL_S = 60.0  # without a file that came, and the time for the largest, hosts are not waited for any more
SLOWEST = 4 << 20  # bytes a second between hosts
POLL_S = 0.2
BRING_S = 2.0  # after which hosts are asked again to fetch what they lack
NAMED = 3  # hosts, or files, in a message

Tell = Callable[[int, int], None]
"""Bytes that have come to hosts that lacked them, and how many are to come in all."""


@dataclass(frozen=True, slots=True)
class Place:
    """How files stand on one host. `own`: ids of those under the run's own path; `here`: of all that lie there."""

    node: str
    own: frozenset[str]
    here: frozenset[str]
    runs_code: bool

    def lacking(self, files: Iterable[FileRef]) -> list[FileRef]:
        return [file for file in files if file.ref.id not in self.here]

    def refuses(self, files: Iterable[FileRef]) -> list[FileRef]:
        """Code that would be that of the wire, where none of that runs."""
        return [] if self.runs_code else [file for file in files if is_code(file.key) and file.ref.id not in self.own]


def stage(client: Client, base: Path, files: Sequence[FileRef]) -> None:
    """Bring a run's files to the hosts that lack them, and name the hosts that will not take part. Raises CliError
    where nobody could."""
    places = locate(client, base, files) if files else []
    _check_code(places, base, files)
    _check_models(places, base, [file for file in files if is_model(file.key)])
    moving = [file for file in files if not is_model(file.key)]
    if any(place.lacking(moving) for place in places):
        spread(client, base, moving, places, COPIES)


def locate(client: Client, base: Path, files: Sequence[FileRef]) -> list[Place]:
    """How files stand on each living host that says so."""
    asked = {"base": str(base), "files": as_params(files)}
    began, is_told = time.monotonic(), False
    while True:
        answer = client.call("files.locate", asked)
        waited_s = time.monotonic() - began
        if not answer["missing"] or waited_s > LOCATE_S:
            break
        if waited_s > TOLD_AFTER_S and not is_told:  # who reads a large file for the first time answers late
            note(f"waiting for {_names(answer['missing'])} to say which of the files are there")
            is_told = True
        time.sleep(POLL_S)
    return [
        Place(row["node"], frozenset(row["own"]), frozenset(row["here"]), bool(row["runs_code"]))
        for row in answer["nodes"]
    ]


def spread(
    client: Client,
    base: Path,
    files: Sequence[FileRef],
    places: Sequence[Place],
    copies: int,
    tell: Tell = lambda come, whole: None,
) -> list[Place]:
    """Send what no host has, have all fetch what they lack, and wait until so many have all of it. Raises CliError."""
    before = {place.node: place.here for place in places}
    whole = sum(file.ref.nbytes for place in places for file in place.lacking(files))
    moved_at, last, asked_at = time.monotonic(), -1, -BRING_S
    still_s = STILL_S + max(file.ref.nbytes for file in files) / SLOWEST if files else STILL_S
    were: set[str] | None = None
    while True:
        nodes = {place.node for place in places}
        has_lost = were is None or bool(were - nodes)  # who is gone may have been the only one that had something
        if has_lost and _send_missing(client, base, files, places):
            moved_at, asked_at = time.monotonic(), -BRING_S
        were = nodes
        if time.monotonic() - asked_at >= BRING_S:
            client.call("files.bring", {"base": str(base), "files": as_params(files)})
            asked_at = time.monotonic()
        places = locate(client, base, files)
        come = sum(
            file.ref.nbytes
            for place in places
            for file in files
            if file.ref.id in place.here and file.ref.id not in before.get(place.node, place.here)
        )
        tell(come, whole)
        if sum(not place.lacking(files) for place in places) >= min(copies, len(places)):
            return places
        if come != last:
            moved_at, last = time.monotonic(), come
        if time.monotonic() - moved_at > still_s:
            late = [place for place in places if place.lacking(files)]
            what = f"{_names([place.node for place in late])} did not get {_names(_lacked(late, files))}"
            raise CliError(what, hint="`dflow nodes` and `dflow logs` tell how they stand", exit_code=EXIT_FAILED)
        time.sleep(POLL_S)


def _send_missing(client: Client, base: Path, files: Sequence[FileRef], places: Sequence[Place]) -> bool:
    """Send what no host has; whether there was anything. Raises CliError."""
    here = frozenset[str]().union(*(place.here for place in places))
    nowhere = {file.ref.id: file for file in files if file.ref.id not in here}
    if nowhere:
        whole = sum(file.ref.nbytes for file in nowhere.values())
        note(f"sending {_names([file.name for file in nowhere.values()])} ({amount(whole)}): no host has it")
    for file in nowhere.values():
        _send(client, base, file)
    return bool(nowhere)


def as_params(files: Sequence[FileRef]) -> list[dict[str, object]]:
    return [{"key": file.key, "name": file.name, "id": file.ref.id, "bytes": file.ref.nbytes} for file in files]


def _send(client: Client, base: Path, file: FileRef) -> None:
    """To the daemon that is asked first; to another one from the start, where that is gone."""
    offset = 0
    with (base / file.name).open("rb") as source:
        while True:
            source.seek(offset)
            data = source.read(PIECE_BYTES)
            if not data and offset < file.ref.nbytes:
                raise CliError("is shorter than it was a moment ago", where=file.name, hint="do it again")
            asked = {"id": file.ref.id, "bytes": file.ref.nbytes, "offset": offset, "data": data}
            offset = int(client.call("files.put", asked, deadline_s=30.0)["offset"])
            if offset >= file.ref.nbytes:
                return


def _check_code(places: Sequence[Place], base: Path, files: Sequence[FileRef]) -> None:
    refusing = {place.node: refused for place in places if (refused := place.refuses(files))}
    if not refusing:
        return
    code = _names(sorted({file.name for refused in refusing.values() for file in refused}))
    hint = f"set `run_code = true` under [trust] in dflowd.toml of hosts that may run it, or put it into {base} there"
    if len(refusing) == len(places):
        raise CliError(f"no host runs code that comes by wire, such as {code}", hint=hint)
    whom = _names(list(refusing))
    note(f"warning: {whom} will not run {code}, as no code that comes by wire runs there\nhint: {hint}")


def _check_models(places: Sequence[Place], base: Path, models: Sequence[FileRef]) -> None:
    lacking = [place for place in places if place.lacking(models)]
    if not lacking:
        return
    folder = base / Path(models[0].name).parent
    hint = f"`dflow push {folder}` brings it to all"
    if len(lacking) == len(places):
        raise CliError(f"no host has {_names(_lacked(lacking, models))}", hint=hint)
    what = f"{_names([place.node for place in lacking])} will not take part before it has the model"
    note(f"warning: {what}\nhint: {hint}")


def _lacked(places: Iterable[Place], files: Sequence[FileRef]) -> list[str]:
    return list(dict.fromkeys(file.name for place in places for file in place.lacking(files)))


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{', '.join(names[:NAMED])}{more}"
