"""Ports for the daemons of a mesh on one host."""

from __future__ import annotations

import pytest

from dflow_cli.errors import CliError
from dflow_cli.mesh.meshfiles import free_ports


def test_as_many_as_there_are_may_be_had() -> None:
    """Each once, however many daemons a person tries out on one host."""
    assert len(set(free_ports(1_500))) == 1_500


def test_more_daemons_than_a_host_has_ports_for_are_refused_with_both_numbers() -> None:
    """Nothing that listens there is to blame, whatever is stopped."""
    with pytest.raises(CliError, match="200000 free ports are needed on") as caught:
        free_ports(200_000)
    assert caught.value.hint.startswith("start fewer daemons")
