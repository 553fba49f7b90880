"""dflow schema."""

from __future__ import annotations


def schema() -> None:
    """Print the JSON Schema of pipelines, for editors and other programs.

    Its `$id` ends with the version of plans. What ties values together only `dflow validate` knows.

    Example: dflow schema > pipeline.schema.json
    """
    import json

    from dflow_protocols.pipeline.grammar.schema import make_schema

    print(json.dumps(make_schema(), indent=1))
