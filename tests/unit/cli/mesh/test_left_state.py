"""What a killed `dflow run` left in DIR is not the next one's to delete, if it is worth anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from dflow_cli.errors import CliError
from dflow_cli.mesh import localmesh
from dflow_cli.mesh.meshfiles import MeshFile, prepare_node, write_mesh

RUN = "3f9c" * 8


def test_checkpoints_that_a_killed_run_left_are_named_and_kept(tmp_path: Path) -> None:
    """Hours of training lie there; the command says how to go on with them."""
    node = prepare_node(tmp_path, "n0", (15001, 15002))
    write_mesh(tmp_path, MeshFile(False, (node,)))
    folder = node.folder / "state/runs" / RUN / "checkpoints/step-000050"
    folder.mkdir(parents=True)
    with pytest.raises(CliError, match="left checkpoints of run 3f9c3f9c here") as caught:
        localmesh.start(tmp_path, 1, for_one_run=True)
    assert f"dflow up --nodes 1 --dir {tmp_path}" in caught.value.hint
    assert folder.is_dir()
