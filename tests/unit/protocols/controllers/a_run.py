"""A run at one node without a mesh, for tests of what acts on it: its state, the node's view of the mesh, messages."""

from __future__ import annotations

import itertools
from collections.abc import Collection

from dflow_protocols.events import Action, Send
from dflow_protocols.names import NodeId
from dflow_protocols.pipeline.spec import Pipeline
from dflow_protocols.run_state import status as runs
from dflow_protocols.run_state.calls import Calls
from dflow_protocols.run_state.outbox import Outbox
from dflow_protocols.run_state.run_state import MeshView, RunState
from dflow_protocols.simulator.toy import two_steps
from dflow_protocols.steps.roster import make_roster
from dflow_protocols.steps.view import StepView
from dflow_protocols.wire.listing import FileRef
from dflow_protocols.wire.steps import Header, RunPut
from tests.unit.protocols.books import RUN, SUSPICION_S, ZERO, who


def mesh(*living: int, stable: Collection[int] | None = None, is_gathered: bool = True) -> MeshView:
    """The members `living` as a node sees them now."""
    nodes = frozenset(map(who, living))
    steady = nodes if stable is None else frozenset(map(who, stable))
    return MeshView(nodes, steady, SUSPICION_S, 1, is_gathered)


ALL = mesh(1, 2, 3)


class ARun:
    """The state of a run at one node of a few, and what controllers act by. With `own` it holds that version."""

    def __init__(
        self,
        pipeline: Pipeline | None = None,
        own: Header | None = ZERO,
        restored: bool = False,
        members: int = 3,
        me: int = 1,
        files: tuple[FileRef, ...] = (),
    ) -> None:
        chosen = pipeline if pipeline is not None else two_steps()
        nodes = [who(number) for number in range(1, members + 1)]
        roster = make_roster(0, 0, nodes, nodes)
        status = RunPut(RUN, runs.ACTIVE, 0, chosen.canonical(), "/spec", files, who(2), "0", roster, b"", False)
        self.state = RunState(who(me), status, chosen, 0.0, restored)
        self.outbox = Outbox(self.state)
        self.calls = Calls(self.state, itertools.count(1))
        self.out: list[Action] = []
        if own is not None:
            self.hold(own)

    def hold(self, header: Header) -> None:
        """The version is whole in this node's store."""
        for _, ref in header.state:
            self.state.holdings.keep(ref, is_state=True)
        self.state.versions.hold(header)

    def view(self, now: float = 0.0, members: MeshView = ALL) -> StepView:
        position = self.state.position
        assert position is not None
        return self.state.view(now, members, position)

    def told(self, kind: type) -> list[tuple[NodeId, object]]:
        """The messages of a kind that were sent, and to whom."""
        sent = [action for action in self.out if isinstance(action, Send)]
        return [(action.to, action.message) for action in sent if isinstance(action.message, kind)]
