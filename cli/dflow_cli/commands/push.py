"""dflow push."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..folder import DEFAULT_FOLDER
from ..options import AsJson, Folder, To


def push(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model's folder, as `save_pretrained` writes it.")],
    folder: Folder = DEFAULT_FOLDER,
    to: To = "",
    as_json: AsJson = False,
) -> None:
    """Bring a model to every host of the mesh, so that pipelines that name it run there.

    It lies in each daemon's cache (`files.cache_limit`) by what it holds, under any name. Hosts that have it already,
    in the cache or under this path, fetch nothing; it is sent once, and hosts fetch it from each other.

    Example: dflow push out/qwen
    """
    from ..errors import CliError
    from ..mesh.reach import reach
    from ..output import amount, note, print_json
    from ..runs.follow import acquaint
    from ..submitting.listing import files_in
    from ..submitting.staging import locate, spread
    from ..views.bar import bar

    if not model.is_dir():
        raise CliError("there is no such folder", where=str(model), hint="name a model's folder")
    base = model.absolute()
    files = files_in(base)
    with reach(Path(folder).absolute(), to) as client:
        acquaint(client, Path(folder).absolute())
        places = locate(client, base, files)
        with bar("to hosts") as tell:
            places = spread(client, base, files, places, len(places), tell)
    nbytes = sum(file.ref.nbytes for file in files)
    if as_json:
        print_json({"files": len(files), "bytes": nbytes, "nodes": [place.node for place in places]})
    else:
        count, verb = (f"{len(files)} files", "lie") if len(files) > 1 else ("1 file", "lies")
        note(f"{count}, {amount(nbytes)}, {verb} on {', '.join(place.node for place in places)}")
