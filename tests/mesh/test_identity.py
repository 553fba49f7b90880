"""One key, one node: copies of a state directory are refused where they can be, and harmless where they cannot."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.mesh.test_daemon_life import refused_start
from tests.support.alone import weights_of
from tests.support.mesh import Daemon, Mesh, Refused
from tests.support.strike import all_stages, ended, running_step
from tests.support.toy import toy_pipeline

NOTICES_S = 60.0


def copied(mesh: Mesh, original: Daemon) -> Daemon:
    """Another daemon, at another address, with a copy of all that makes the original who it is."""
    twin = mesh.prepare()
    shutil.copytree(original.folder / "state", twin.folder / "state", ignore=shutil.ignore_patterns("engines"))
    shutil.copyfile(original.folder / "key", twin.folder / "key")
    twin.keys = original.keys
    del mesh.nodes[twin.name]  # the mesh has no more members than before
    mesh.write_allow_list()
    return twin


def test_a_copied_folder_on_another_machine_is_one_clear_error(tmp_path: Path) -> None:
    """Machine images are cloned with all that lies on them; two nodes of one key would deafen each other."""
    with Mesh(tmp_path, 1) as mesh:
        (node,) = mesh.running()
        mesh.terminate(node)
        (node.folder / "state" / "machine").write_text("0" * 32)
        error, hint = refused_start(node)
        assert error.startswith(f"error: {node.config}: node.state_dir: `{node.folder / 'state'}` was made on another")
        assert hint.startswith("hint: remove the copied folder")


def test_of_two_processes_with_one_key_the_later_is_silent_and_the_mesh_goes_on(tmp_path: Path) -> None:
    """On one machine nothing forbids the copy to start. It is told who is there; the run does not notice it."""
    with Mesh(tmp_path, 3) as mesh:
        original, other, _ = mesh.running()
        run = mesh.submit(other, all_stages(6))
        running_step(mesh, run)
        twin = copied(mesh, original)
        mesh.launch(twin)
        try:
            mesh.until(lambda: any("membership.silenced" in line for line in twin.log_lines()), NOTICES_S)
            (problem,) = [p for p in mesh.ask(twin, "status")["problems"] if p["key"] == "membership.silenced"]
            assert original.control in problem["what"]
            with pytest.raises(Refused, match="silent"):
                mesh.submit(twin, toy_pipeline())
            mesh.await_all()
            assert not any("membership.silenced" in line for line in original.log_lines())
            answer = ended(mesh, run)
            assert (answer["state"], answer["weights"]) == ("done", weights_of(all_stages(6)))
            assert mesh.terminate(twin) == 0
        finally:
            mesh.kill(twin)
        mesh.await_all()


def test_a_state_directory_that_was_restored_from_an_old_copy_joins_all_the_same(tmp_path: Path) -> None:
    """Its disk forgot the lives since then; the others know of later ones, and it outbids them."""
    with Mesh(tmp_path, 2) as mesh:
        node, other = mesh.running()
        mesh.kill(node)
        shutil.copytree(node.folder / "state", tmp_path / "backup")
        for _ in range(3):
            mesh.launch(node)
            mesh.await_all()
            mesh.kill(node)
        shutil.rmtree(node.folder / "state")
        shutil.copytree(tmp_path / "backup", node.folder / "state")
        mesh.launch(node)
        mesh.await_all()
        mesh.until(lambda: any("membership.outbid" in line for line in node.log_lines()), NOTICES_S)
        assert not any("membership.silenced" in line for line in node.log_lines())
        assert ended(mesh, mesh.submit(other, toy_pipeline()))["state"] == "done"
