"""dflow submit."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from ..folder import DEFAULT_FOLDER, dir_option
from ..options import AsJson, Folder, Overlays, Sets, Spec, To


def submit(
    spec: Spec,
    overlays: Overlays = None,
    sets: Sets = None,
    folder: Folder = DEFAULT_FOLDER,
    to: To = "",
    as_json: AsJson = False,
) -> None:
    """Hand a pipeline to the mesh and return. The run no longer needs this machine.

    Example: dflow submit examples/spell_backward.yaml --set params.grpo=60
    """
    from ..errors import CliError
    from ..mesh.reach import reach
    from ..output import note, print_json
    from ..runs.follow import acquaint
    from ..submitting.submission import read_spec, twins
    from ..submitting.submission import submit as hand_over

    loaded = read_spec(spec, overlays, sets)
    with reach(Path(folder).absolute(), to) as client:
        acquaint(client, Path(folder).absolute())  # so that another one is asked if the first dies, also later
        run = hand_over(client, loaded)
        if as_json:
            print_json({"run": run})
            return
        print(run)
        note(f"watch it with: dflow watch {run[:8]}{dir_option(folder)}")
        with suppress(CliError):  # it is handed over, whether or not this can be told
            for twin in twins(client, loaded, run):
                end = f"`dflow cancel {run[:8]}{dir_option(folder)}` ends this one"
                note(f"run {twin[:8]} is active and of the very same pipeline: all of it is done twice; {end}")
