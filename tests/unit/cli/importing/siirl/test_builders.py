"""Python files that build siiRL pipelines, where siiRL is not installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from dflow_cli.errors import CliError
from dflow_cli.importing.siirl.builders import build_workflows

MINE = """
import nowhere_installed.thing as thing
from nowhere_installed import Base, decorated
from siirl.dag_worker.dagworker import DAGWorker
from siirl.dag_worker.data_structures import NodeOutput
from siirl.execution.dag.builtin_pipelines import grpo_pipeline
from siirl.execution.dag.node import NodeRole, NodeType
from siirl.execution.dag.pipeline import NodeConfig, Pipeline
from siirl.execution.dag.task_graph import TaskGraph


class Judge(Base):
    scale: thing.Scale | None = None


@decorated
def halved(batch: thing.Batch[int], **settings) -> NodeOutput:
    return NodeOutput(batch=batch, metrics={})


def looped(rounds: int = 2):
    print("this is not what it builds")
    pipeline = Pipeline("looped", "nodes that a loop adds").add_node("roll", func=DAGWorker.generate, deps=[])
    before = "roll"
    for number in range(rounds):
        pipeline.add_node(f"half_{number}", func=halved, deps=[before], config=NodeConfig(agent_group=0))
        before = f"half_{number}"
    pipeline.add_node("learn", "siirl.dag_worker.dagworker:DAGWorker.train_actor", [before],
                      node_type=NodeType.MODEL_TRAIN, node_role=NodeRole.ACTOR, only_forward_compute=False)
    return pipeline.build()


def theirs() -> TaskGraph:
    return grpo_pipeline()


def main(argument):
    raise SystemExit("a builder takes no argument")
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.py"
    path.write_text(text)
    return path


def test_all_builders_of_a_file_are_read_as_siirl_would_have_them(tmp_path: Path) -> None:
    """With loops, functions given as such, imports of what is not here, and siiRL's own pipelines inside."""
    looped, theirs = build_workflows(write(tmp_path, MINE))
    assert [(node.id, node.func, node.needs) for node in looped.nodes] == [
        ("roll", "siirl.dag_worker.dagworker:DAGWorker.generate", ()),
        ("half_0", "mine:halved", ("roll",)),
        ("half_1", "mine:halved", ("half_0",)),
        ("learn", "siirl.dag_worker.dagworker:DAGWorker.train_actor", ("half_1",)),
    ]
    assert (looped.nodes[-1].type, looped.nodes[-1].role) == ("MODEL_TRAIN", "ACTOR")
    assert looped.name == "looped"
    assert [node.id for node in theirs.nodes][-2:] == ["reference_log_prob", "actor_train"]


def test_one_builder_may_be_named(tmp_path: Path) -> None:
    """As siiRL's `dag.custom_pipeline_fn` names it."""
    (only,) = build_workflows(write(tmp_path, MINE), "theirs")
    assert only.source == f"{tmp_path / 'mine.py'}:theirs"


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        (MINE.replace("NodeRole.ACTOR", "NodeRole.ACTRESS"), ":29", "AttributeError: .*ACTRESS"),
        (MINE.replace("range(rounds)", "range(1 // 0)"), ":25", "ZeroDivisionError"),
        ("from siirl import Pipeline\nraise SystemExit(3)\n", ":2", "SystemExit: 3"),
        ("import os\nos._exit(3)\n", "", "its process ended"),
        ("def f(:\n", ":1", "SyntaxError"),
        ("x = 1\n", "", "no function of it builds"),
        ("from siirl import Pipeline\ndef f():\n    Pipeline('x')\n    return 3\n", "", "TypeError: .* returned int"),
    ],
)
def test_a_file_that_builds_nothing_says_why_in_one_error(tmp_path: Path, text: str, line: str, what: str) -> None:
    """With the line of the user's own file where there is one."""
    path = write(tmp_path, text)
    with pytest.raises(CliError, match=what) as caught:
        build_workflows(path)
    assert caught.value.where == f"{path}{line}"
    assert caught.value.hint


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (("deps=[before], config", 'deps=["nobody"], config'), "`half_0` waits for `nobody`"),
        (("deps=[before], config", 'deps=["learn"], config'), "nodes wait for each other"),
        (('f"half_{number}", func', '"half_0", func'), "two nodes `half_0`"),
    ],
)
def test_a_graph_that_siirl_would_refuse_is_refused(tmp_path: Path, change: tuple[str, str], what: str) -> None:
    """There is nothing to make a spec of."""
    with pytest.raises(CliError, match=what):
        build_workflows(write(tmp_path, MINE.replace(*change)), "looped")
