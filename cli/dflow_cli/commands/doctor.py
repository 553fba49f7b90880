"""dflow doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..folder import DEFAULT_FOLDER
from ..options import AsJson, Folder, To


def doctor(
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="A daemon's configuration on this host, to check.")
    ] = None,
    folder: Folder = DEFAULT_FOLDER,
    to: To = "",
    as_json: AsJson = False,
) -> None:
    """Look for what is wrong with this host and with the mesh, and say what mends it.

    Checks ports, keys, limits, memory, disk and the engine here; and of every member its clock, limits, version,
    numerics and what it reports itself. Exit code 0: nothing is wrong (warnings aside); 1: something is.

    Example: dflow doctor --config dflowd.toml
    """
    from dataclasses import asdict

    from ..checkup.examine import examine
    from ..errors import EXIT_DONE, EXIT_FAILED
    from ..output import note, print_json, print_table

    checks = list(examine(config, Path(folder).absolute(), to))
    count = {state: sum(check.state == state for check in checks) for state in ("ok", "warning", "wrong")}
    if as_json:
        print_json({"checks": [asdict(check) for check in checks], **count})
    else:
        print_table(("", "check", "of", "found"), [(it.state, it.subject, it.place, it.what) for it in checks])
        for check in checks:
            if check.state != "ok" and check.mend:
                print(f"mend {check.subject} of {check.place}: {check.mend}")
        note(f"{count['wrong']} wrong, {count['warning']} to look at, {count['ok']} in order")
    raise typer.Exit(EXIT_FAILED if count["wrong"] else EXIT_DONE)
