"""dflow validate."""

from __future__ import annotations

import sys

import typer

from ..options import AsJson, Overlays, Sets, Spec


def validate(spec: Spec, overlays: Overlays = None, sets: Sets = None, as_json: AsJson = False) -> None:
    """Check a pipeline and every file it names, and tell every mistake with its line. Starts nothing.

    Example: dflow validate examples/spell_backward.yaml
    """
    from ..errors import EXIT_WRONG_INPUT, Problem, explain
    from ..output import print_json
    from ..specfile import SpecFileError, load

    try:
        loaded = load(spec, overlays or [], sets or [])
    except SpecFileError as error:
        for problem in error.problems:
            print(explain(Problem(problem.what, where=problem.where, hint=problem.hint)), file=sys.stderr)
        raise typer.Exit(EXIT_WRONG_INPUT) from None
    pipeline = loaded.pipeline
    if as_json:
        stages = [stage.id for stage in pipeline.stages]
        print_json({"name": pipeline.name, "spec": pipeline.id, "steps": pipeline.steps, "stages": stages})
    else:
        print(f"{spec}: {len(pipeline.stages)} stages, {pipeline.steps} steps, spec {pipeline.id[:12]}: nothing wrong")
