"""Mutations: each breaks one rule of docs/protocol.md. `mutation.py` says how; one file a room says which."""

from __future__ import annotations

from collections.abc import Mapping

from .claiming import CLAIMING
from .controllers import CONTROLLERS
from .membership import MEMBERSHIP
from .mutation import Mutation
from .runs import RUNS
from .shards import SHARDS
from .steps import STEPS
from .versions import VERSIONS

MUTATIONS: Mapping[str, Mutation] = {
    each.name: each for each in (*STEPS, *VERSIONS, *CONTROLLERS, *CLAIMING, *SHARDS, *RUNS, *MEMBERSHIP)
}
