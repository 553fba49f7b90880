"""dflow down."""

from __future__ import annotations

from pathlib import Path

from ..folder import DEFAULT_FOLDER
from ..options import AsJson, Folder


def down(folder: Folder = DEFAULT_FOLDER, as_json: AsJson = False) -> None:
    """Stop the daemons that `dflow up` started. Active runs are saved where they are, and go on with `dflow up`.

    Example: dflow down --dir /tmp/mesh
    """
    from ..kept.ended import cut_short
    from ..mesh import localmesh
    from ..output import note, print_json

    place = Path(folder).absolute()
    stopped = localmesh.stop(place)
    if as_json:
        print_json({"stopped": [node.name for node in stopped]})
    elif stopped:
        note(f"stopped {', '.join(node.name for node in stopped)}")
        for line in cut_short(place):
            note(line)
    else:
        note(f"no mesh was up in {folder}")
