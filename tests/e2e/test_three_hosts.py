"""The walk of docs/hosts.md from one box to three, as it stands there, on three hosts of a network of their own."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_submitter_leaves import SPEC
from tests.support.dflow import written
from tests.support.hosts import Hosts, lacks
from tests.support.repository import ROOT
from tests.support.until import until

ADDRESSES = {"a1": "10.0.0.7", "a2": "10.0.0.8", "a3": "10.0.0.9"}
PAGE = (ROOT / "docs" / "hosts.md").read_text().partition("## By hand")[2].partition("\n## ")[0]
NEW_KEY, SHOW_KEY, AUTHORIZE, _, DOCTOR, RUN, NODES, SUBMIT = (
    line.split("     ")[0].strip() for line in re.findall(r"^ +(dflowd? .*)$", PAGE, re.MULTILINE)
)
(CONFIG,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)


def of(text: str, host: str) -> str:
    """What the page writes for a1, for this host."""
    return text.replace("a1", host, 1).replace("10.0.0.7", ADDRESSES[host])


@pytest.mark.skipif(bool(lacks()), reason=lacks())
def test_three_hosts_become_a_mesh_by_the_commands_of_the_page(tmp_path: Path) -> None:
    """Whoever follows the page gets a mesh that trains; the client needs no daemon beside it and asks on by itself."""
    folders = {host: tmp_path / host for host in ADDRESSES}
    for folder in folders.values():
        folder.mkdir()
    spec = written(SPEC, folders["a3"])
    with Hosts(ADDRESSES) as hosts:
        lines = [hosts.run(host, shlex.split(of(NEW_KEY, host)), folders[host]) for host in ADDRESSES]
        lines.append(hosts.run("a3", shlex.split(SHOW_KEY), folders["a3"]))
        for host, folder in folders.items():
            hosts.run(host, shlex.split(AUTHORIZE), folder, typed="".join(lines))
            (folder / "dflowd.toml").write_text(of(CONFIG, host))
            with (folder / "output").open("wb") as output:
                hosts.start(host, shlex.split(RUN), folder, output)
        door = NODES.replace("KEY-OF-A1", lines[0].split()[0])

        def ann(command: str, *more: str) -> dict[str, Any]:
            words = [*shlex.split(command), *more, "--json"]
            value: dict[str, Any] = json.loads(hosts.run("a3", words, folders["a3"]).splitlines()[-1])
            return value

        def all_alive() -> bool:
            answer = json.loads(hosts.run("a3", [*shlex.split(door), "--json"], folders["a3"]))
            states = {node["name"]: node["state"] for node in answer["nodes"]}
            return states == dict.fromkeys(ADDRESSES, "alive")

        until(lambda: "daemon.started" in (folders["a1"] / "output").read_text(), 60.0)
        until(all_alive, 60.0)
        run = ann(SUBMIT.replace("pipeline.yaml", str(spec)))["run"]
        ended = ann(f"dflow wait {run} --timeout 120 --dir ann")
        assert (ended["state"], ended["nodes"]) == ("done", 3)
        tasks = ann(f"dflow tasks {run} --dir ann")["tasks"]
        assert {task["node"] for task in tasks} == set(ADDRESSES)
        hosts.run("a3", [*shlex.split(DOCTOR), "--dir", "ann"], folders["a3"])  # once: it loads PyTorch each time
