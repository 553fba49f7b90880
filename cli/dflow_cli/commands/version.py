"""dflow version."""

from __future__ import annotations

import typer

from ..options import AsJson


def version(as_json: AsJson = False) -> None:
    """Print the versions of the program, of the wire and of plans.

    Example: dflow version --json
    """
    import platform
    from importlib.metadata import version as installed

    from dflow_protocols.pipeline.grammar.layout import PLAN_VERSION
    from dflow_protocols.wire.frame import WIRE_VERSION

    from ..output import print_json

    value = {
        "dflowd": installed("dflowd"),
        "wire": WIRE_VERSION,
        "plan": PLAN_VERSION,
        "python": platform.python_version(),
    }
    if as_json:
        print_json(value)
    else:
        print(" ".join(f"{name} {number}" for name, number in value.items()))


def tell_version(is_asked: bool) -> None:
    """What `dflow --version` does: the same, and nothing else of the line."""
    if is_asked:
        version()
        raise typer.Exit
