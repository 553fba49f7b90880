"""Two policies, one of which replies to the other: the same weights on one host and on two, and talks to read."""

from __future__ import annotations

from pathlib import Path

from tests.support.dflow import answer, dflow, example_folder, run_on_one_and_two, settings

SMALL = {
    "params.warmup": 2,
    "params.grpo": 2,
    "stages.warm_sender.config.batch": 32,
    "stages.warm_reader.config.batch": 32,
    "stages.send.config.prompts": 16,
    "stages.send.config.partitions": 8,
}


def test_two_policies_do_not_depend_on_how_many_nodes_train_them(tmp_path: Path) -> None:
    """A step is two updates, one of each model, on one chain; both leave the mesh whole."""
    spec = example_folder(tmp_path).with_name("two_policies.yaml")
    told = run_on_one_and_two(spec, *settings(SMALL))
    samples = answer("samples", told[0]["run"], "--dir", tmp_path / "m1")["samples"]
    talk = samples[-1]["turns"]
    assert [turn["role"] for turn in talk] == ["assistant", "user", "assistant"]
    assert talk[0]["content"] in talk[1]["content"]
    dflow("export", told[1]["run"], tmp_path / "out", "--dir", tmp_path / "m2")
    from transformers import AutoModelForCausalLM

    reader, sender = (AutoModelForCausalLM.from_pretrained(tmp_path / "out" / name) for name in ("", "sender"))
    assert (reader.lm_head.weight != sender.lm_head.weight).any()
