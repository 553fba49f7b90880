"""dflow validate."""

from __future__ import annotations

import sys
from dataclasses import asdict

import typer

from ..options import AsJson, Overlays, Sets, Spec


def validate(spec: Spec, overlays: Overlays = None, sets: Sets = None, as_json: AsJson = False) -> None:
    """Check a pipeline and its files: every mistake, with its line. Starts nothing.

    A warning is about what can run and is probably not meant; the exit code is 0 with warnings alone.

    Example: dflow validate examples/spell_backward.yaml
    """
    from ..errors import EXIT_WRONG_INPUT, CliError, explain
    from ..output import print_json
    from ..spec.specfile import SpecFileError, load
    from ..submitting.submission import tell_warnings

    try:
        loaded = load(spec, overlays or [], sets or [])
    except SpecFileError as error:
        for problem in error.problems:
            print(explain(CliError(problem.what, where=problem.where, hint=problem.hint)), file=sys.stderr)
        raise typer.Exit(EXIT_WRONG_INPUT) from None
    pipeline, warnings = loaded.pipeline, [asdict(warning) for warning in loaded.warnings]
    tell_warnings(loaded)
    if as_json:
        stages = [stage.id for stage in pipeline.stages]
        about = {"name": pipeline.name, "spec": pipeline.id, "steps": pipeline.steps, "stages": stages}
        print_json(about | {"warnings": warnings})
        return
    doubtful = f"{len(warnings)} warning{'' if len(warnings) == 1 else 's'}" if warnings else "nothing wrong"
    print(f"{spec}: {len(pipeline.stages)} stages, {pipeline.steps} steps, spec {pipeline.id[:12]}: {doubtful}")
