"""What examples/gsm8k/qwen.yaml takes with models of several sizes, as `dflow plan --memory` derives it.

python -m tests.support.sizes          the table of docs/gpu.md
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from dflow_cli.memory.needs import Needs, needs_of
from dflow_cli.memory.outline import Outline, outline_of
from dflow_cli.spec.modelfiles import ModelFiles
from dflow_cli.spec.spectree import read_yaml, strip
from dflow_protocols.pipeline import Pipeline
from tests.support.repository import EXAMPLES

KEYS = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size")
QWEN = {  # of Qwen2.5's config.json: KEYS, rows of the vocabulary, whether the head is the embedding
    "0.5B": (896, 24, 14, 2, 4864, 151936, True),
    "1.5B": (1536, 28, 12, 2, 8960, 151936, True),
    "7B": (3584, 28, 28, 4, 18944, 152064, False),
    "32B": (5120, 64, 40, 8, 27648, 152064, False),
}
RANK = 32
MICRO_BATCHES = (4096, 16384)  # tokens


def outline(size: str) -> Outline:
    *widths, rows, tied = QWEN[size]
    config = dict(zip(KEYS, widths, strict=True)) | {"vocab_size": rows, "tie_word_embeddings": tied}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config | {"model_type": "qwen2"}))
        made = outline_of(ModelFiles("policy", {"path": "."}, Path(folder)))
    assert made is not None
    return made


def needs(made: Outline, rank: int | None, compute: str, tokens: int) -> Needs:
    spec = strip(read_yaml((EXAMPLES / "gsm8k" / "qwen.yaml").read_text(), "qwen.yaml"))
    for model in spec["models"].values():
        model["dtype"] = compute
    if rank is not None:
        spec["models"]["policy"]["lora"] = {"rank": rank, "alpha": 2 * rank}
    (learn,) = (stage for stage in spec["stages"] if stage["id"] == "learn")
    learn["config"] |= {"compute": compute, "micro_batch_tokens": tokens}
    return needs_of(Pipeline.from_dict(spec), dict.fromkeys(("policy", "reference"), made), has_gpu=True)


def main() -> None:
    for size in QWEN:
        made = outline(size)
        for rank in (None, RANK):
            for compute in ("float32", "bfloat16"):
                few, many = (needs(made, rank, compute, tokens) for tokens in MICRO_BATCHES)
                told = [size, "whole" if rank is None else f"adapters, rank {rank}", compute]
                told.append(f"{few.trained / 1e6:,.0f}")
                nbytes = (few.most_shards, few.most_engine, few.most_device, many.most_device)
                told += [f"{each / 1e9:.1f}" for each in nbytes]
                print(f"| {' | '.join(told)} |")


if __name__ == "__main__":
    main()
