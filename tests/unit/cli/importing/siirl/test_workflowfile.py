"""siiRL's workflow files."""

from __future__ import annotations

from pathlib import Path

import pytest

from dflow_cli.errors import CliError
from dflow_cli.importing.siirl.workflowfile import read_workflow

# Of the shape of siiRL's multi-agent workflow: shared settings by an anchor, agents, a reference to a global setting.
WORKFLOW = """
dag_id: "two_agents"
description: "two agents, one after the other"
global_config: {sampling: {n: 4}}
shared: &shared
  rollout.temperature: 0.7
  rollout.n: !Ref global_config.sampling.n
nodes:
  - node_id: "answer"
    node_type: "MODEL_INFERENCE"
    node_role: "ROLLOUT"
    agent_group: 1
    config: *shared
    dependencies: ["plan"]
    agent_options: {process_path: process.py}
  - {node_id: "plan", node_type: "model_inference", node_role: "rollout", config: *shared, dependencies: []}
  - {node_id: "judge", node_type: "COMPUTE", node_role: "REWARD", dependencies: [answer]}
  - {node_id: "own", node_type: "COMPUTE", dependencies: [judge], executable_ref: "mine.steps.shorten"}
"""


def test_a_workflow_is_read_in_the_order_of_its_dependencies(tmp_path: Path) -> None:
    """Anchors and references put in, words in any case."""
    path = tmp_path / "workflow.yaml"
    path.write_text(WORKFLOW)
    workflow = read_workflow(path)
    assert [node.id for node in workflow.nodes] == ["plan", "answer", "judge", "own"]
    answer = workflow.nodes[1]
    assert answer.config == {"rollout.temperature": 0.7, "rollout.n": 4}
    assert (answer.role, answer.agent, answer.options) == ("ROLLOUT", 1, {"process_path": "process.py"})
    assert workflow.nodes[-1].func == "mine.steps.shorten"
    assert workflow.agents == (0, 1)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "no workflow of siiRL"),
        ("name: x\nstages: []\n", "no workflow of siiRL"),
        ("dag_id: x\nnodes: {a: 1}\n", "no workflow of siiRL"),
        ("dag_id: [x\n", "this is not YAML"),
        ("dag_id: x\nnodes: !!python/object/apply:os.system ['true']\n", "this is not YAML"),
        (WORKFLOW.replace('node_type: "COMPUTE", node_role', "node_role"), "node `judge` lacks"),
        (WORKFLOW.replace("REWARD", "REWARDS"), "no node_role `REWARDS`"),
        (WORKFLOW.replace("MODEL_INFERENCE", "MODEL"), "no node_type `MODEL`"),
        (WORKFLOW.replace("[answer]", "answer"), "`dependencies` of node `judge` is not a list"),
        (
            WORKFLOW.replace("agent_group: 1", "agent_group: first"),
            "`agent_group` of node `answer` is not a whole number",
        ),
        (
            WORKFLOW.replace("{process_path: process.py}", "[process.py]"),
            "`agent_options` of node `answer` is not a map",
        ),
        (WORKFLOW.replace("sampling.n", "sampling.m"), "leads nowhere"),
    ],
)
def test_what_is_no_workflow_is_one_error(tmp_path: Path, text: str, what: str) -> None:
    """With what a workflow has to have."""
    path = tmp_path / "workflow.yaml"
    path.write_text(text)
    with pytest.raises(CliError, match=what) as caught:
        read_workflow(path)
    assert caught.value.where.startswith(str(path))
    assert caught.value.hint
