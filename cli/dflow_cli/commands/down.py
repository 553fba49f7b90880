"""dflow down."""

from __future__ import annotations

from pathlib import Path

from ..folder import DEFAULT_FOLDER
from ..options import AsJson, Folder


def down(folder: Folder = DEFAULT_FOLDER, as_json: AsJson = False) -> None:
    """Stop the daemons that `dflow up` started.

    Example: dflow down --dir /tmp/mesh
    """
    from ..mesh import localmesh
    from ..output import note, print_json

    stopped = localmesh.stop(Path(folder).absolute())
    if as_json:
        print_json({"stopped": [node.name for node in stopped]})
    elif stopped:
        note(f"stopped {', '.join(node.name for node in stopped)}")
    else:
        note(f"no mesh was up in {folder}")
