"""What is evaluated is sampled as what is trained is."""

from __future__ import annotations

from dflow_protocols.pipeline import Pipeline
from dflowd.data.order import DataSet
from dflowd.models.policy import Policy
from dflowd.operators.evaluate import evaluate
from dflowd.shards.layout import read_texts
from tests.support.partition import first_partition
from tests.support.repository import EXAMPLES
from tests.unit.protocols.written_specs import example, stage


def test_a_stop_text_ends_what_is_evaluated() -> None:
    """An answer that training cuts off at a text was judged with all that the model said after it."""
    spec = example()
    stage(spec, "roll")["config"]["stop"] = ["z"]
    stage(spec, "heldout")["config"] |= {"greedy": False, "temperature": 5.0, "max_tokens": 24}
    pipeline = Pipeline.from_dict(spec)
    policy = Policy("policy", pipeline.models["policy"], EXAMPLES, 5)
    words = DataSet("words", pipeline.data["words"], EXAMPLES, 0)
    partition = first_partition(pipeline, EXAMPLES, "heldout", 40, words, policy=policy, step=50)
    texts = read_texts(evaluate(partition).columns["text"])
    assert any("z" in text for text in texts)
    assert not any("z" in text[:-1] for text in texts)
