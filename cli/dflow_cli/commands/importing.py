"""dflow import siirl."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..group import Command, CommandGroup
from ..options import AsJson

if TYPE_CHECKING:
    from ..importing.draft import Draft

importing = typer.Typer(
    name="import",
    help="Make specs of other programs' pipelines.",
    cls=CommandGroup,
    rich_markup_mode=None,
)


@importing.callback()
def whose() -> None:
    """What `dflow import` takes before the program's name."""


@importing.command(cls=Command)
def siirl(
    named: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="A workflow (YAML), a Python file that builds pipelines (or FILE:FUNCTION), a script that starts a "
            "run, a folder, or grpo, ppo, dapo: those that siiRL comes with.",
        ),
    ],
    config: Annotated[
        list[str] | None,
        typer.Option("--config", metavar="SETTINGS", help="KEY=VALUE, or a file: YAML, or a script. May be repeated."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", metavar="OUT", help="Where to write it; a folder for several. Without it: to stdout."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a spec of a siiRL pipeline, and list what has no twin here. A Python FILE is run, in a process of its own.

    siiRL need not be installed: a stand-in takes its place, and notes the nodes that FILE adds. Scripts are read and
    not run. The exit code is 0 whatever has no twin; `dflow validate` says what has to be done before the spec runs.

    Example: dflow import siirl dapo --config run_qwen3-8b.sh -o dapo.yaml
    """
    from ..importing.siirl.reading import is_script, read_pipelines
    from ..importing.siirl.settings import Settings, read_settings
    from ..importing.translate import translate
    from ..output import print_json

    settings = read_settings([*([named] if is_script(named) else []), *(config or [])])
    drafts = [translate(each, Settings(settings.told)) for each in read_pipelines(named, settings)]
    written = _write(drafts, out) if out is not None else [None] * len(drafts)
    if as_json:
        rows = [_row(draft, path) for draft, path in zip(drafts, written, strict=True)]
        print_json({"pipelines": rows})
        return
    if out is None:
        print("---\n".join(draft.text() for draft in drafts), end="")
    for draft, path in zip(drafts, written, strict=True):
        _tell(draft, path)


def _row(draft: Draft, path: Path | None) -> dict[str, Any]:
    from dataclasses import asdict

    told = {"name": draft.name, "source": draft.source, "path": None if path is None else str(path)}
    return told | {"spec": draft.spec, "notes": [asdict(note) for note in draft.notes]}


def _write(drafts: list[Draft], out: Path) -> list[Path]:
    """Where each was written. Raises CliError where a file is there already, and then writes none."""
    from ..errors import CliError, writing

    called = [draft.name for draft in drafts]
    before = [called[:index].count(name) for index, name in enumerate(called)]  # several files may call theirs alike
    names = [f"{name}.{count + 1}" if count else name for name, count in zip(called, before, strict=True)]
    places = [out / f"{name}.yaml" for name in names] if len(drafts) > 1 or out.is_dir() else [out]
    taken = [place for place in places if place.exists()]
    if taken:
        hint = "nothing is replaced: name another place, or one pipeline by FILE:FUNCTION"
        raise CliError("is there already", where=str(taken[0]), hint=hint)
    for draft, place in zip(drafts, places, strict=True):
        with writing(place):
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(draft.text(), encoding="utf-8")
    return places


def _tell(draft: Draft, path: Path | None) -> None:
    from ..output import note, table_lines

    stages = f"{len(draft.spec['stages'])} stages of {draft.source}"
    note(f"{path or draft.name}: {stages}")
    for line in table_lines(("", "where", "what"), [(each.kind, each.where, each.what) for each in draft.notes]):
        note(line)
