"""A mixture's order: each data set's share, each in its own order, and any position without those before it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from dflow_protocols.pipeline.entries.mixing import PARTS
from dflowd.data.mixture import Mixture
from dflowd.data.order import DataSet
from dflowd.jobs.failures import UserError

COUNTS = {"a": 700, "b": 90, "c": 50}
WEIGHTS = {"b": 1.0, "a": 2.0, "c": 1.0}


def opened(folder: Path, name: str, share: float = 0.2, **more: object) -> DataSet:
    lines = [json.dumps({"prompt": f"{name}{at}", "answer": name}) for at in range(COUNTS[name])]
    (folder / f"{name}.jsonl").write_text("\n".join(lines))
    config = {"jsonl": f"{name}.jsonl", "prompt": "prompt", "answer": "answer", **more}
    held_out = {"by": "question", "share": share, "count": 10} if share else None
    return DataSet(name, {**config, "held_out": held_out}, folder, 0)


def mixture(folder: Path) -> Mixture:
    sets = {name: opened(folder, name, template=f"{name}: {{prompt}}") for name in COUNTS}
    return Mixture("mix", WEIGHTS, sets, dict.fromkeys(COUNTS, 10), 0)


def test_each_data_set_has_its_share_of_every_block(tmp_path: Path) -> None:
    """However long a run is; and which comes where is another order in each block."""
    mixed = mixture(tmp_path)
    blocks = [[mixed.training(block * PARTS + at)["answer"] for at in range(PARTS)] for block in (0, 7)]
    assert Counter(blocks[0]) == Counter(blocks[1]) == {"a": 500, "b": 250, "c": 250}
    assert blocks[0] != blocks[1]


def test_a_data_set_is_walked_in_its_own_order(tmp_path: Path) -> None:
    """So nothing comes twice before all of it was seen, across the borders of blocks, too."""
    mixed, alone = mixture(tmp_path), opened(tmp_path, "a")
    found = [entry for at in range(2 * PARTS) if (entry := mixed.training(at))["answer"] == "a"]
    assert [entry["question"] for entry in found] == [alone.training(at)["question"] for at in range(len(found))]


def test_a_position_has_its_entry_whatever_was_asked_before(tmp_path: Path) -> None:
    """Nodes run the partitions of a step in any order, and steps are redone; nor does the order of names matter."""
    one = mixture(tmp_path)
    sets = {name: opened(tmp_path, name) for name in sorted(COUNTS)}
    other = Mixture("mix", dict(sorted(WEIGHTS.items())), sets, dict.fromkeys(COUNTS, 10), 0)
    forwards = [one.training(position) for position in range(50)]
    assert [other.training(position) for position in reversed(range(50))] == forwards[::-1]
    assert other.training(10**12)["answer"] in COUNTS


def test_an_entry_is_put_to_a_model_and_named_as_its_own_data_set_says(tmp_path: Path) -> None:
    mixed = mixture(tmp_path)
    entry = mixed.training(0)
    assert mixed.wording_of(entry).template == f"{entry['answer']}: {{prompt}}"
    at = int(entry["question"][1:])
    assert mixed.place(entry) == f"{entry['answer']}.jsonl:{at + 1}"
    assert json.loads(json.dumps(entry)) == dict(entry)  # as rewards get it


def test_any_first_part_of_what_is_held_out_is_of_all_data_sets(tmp_path: Path) -> None:
    """`count` may be less than all; what a data set lacks is passed over."""
    mixed = mixture(tmp_path)
    first = [mixed.held_out(index) for index in range(9)]
    assert Counter(entry["answer"] for entry in first if entry is not None) == {"a": 3, "b": 3, "c": 3}
    assert mixed.held_out(30) is None
    trained = {mixed.training(position)["question"] for position in range(3 * PARTS)}
    assert not trained & {entry["question"] for entry in first if entry is not None}
    with pytest.raises(UserError, match="none of its data sets holds anything out"):
        Mixture("mix", {"a": 1.0}, {"a": opened(tmp_path, "a", 0.0)}, {"a": 0}, 0).held_out(0)
