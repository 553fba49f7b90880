"""What other trainers call things leads to what they are called here."""

from __future__ import annotations

from dflow_protocols.pipeline.grammar.elsewhere import _WORDS, called_here
from dflow_protocols.pipeline.grammar.problem import suggest
from dflow_protocols.pipeline.grammar.schema import make_schema


def test_every_word_leads_to_something_that_a_pipeline_may_say() -> None:
    """A key that is renamed takes its words along."""
    written = str(make_schema())
    assert [ours for ours in _WORDS if f"'{ours}'" not in written] == []


def test_a_word_of_another_trainer_is_known_where_what_it_means_may_stand() -> None:
    """`dtype` is a key of a model; of a training it is another program's word for `compute`."""
    assert called_here("num-generations", ["data", "group", "prompts"]) == "group"
    assert called_here("batch_size", ["data", "prompts"]) == "prompts"
    assert called_here("batch_size", ["data", "batch"]) == "batch"
    assert called_here("dtype", ["init", "path"]) is None
    assert called_here("eval", ["evaluate", "generate", "value"]) == "evaluate"  # and not `value`, which is as near
    assert called_here("huggingface", ["jsonl", "parquet"]) == "jsonl"
    assert suggest("max_new_tokens", ["max_tokens", "top_p"], "keys") == "did you mean `max_tokens`?"
