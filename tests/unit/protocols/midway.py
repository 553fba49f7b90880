"""A mesh that is in the middle of a step, and what one of its nodes does when another says something."""

from __future__ import annotations

from typing import Any

from dflow_protocols.events import Action, Received, Send
from dflow_protocols.names import NodeId, TaskKey
from dflow_protocols.node import Node
from dflow_protocols.simulator.goals import node
from dflow_protocols.simulator.spawn import spawn
from dflow_protocols.simulator.toy import two_steps
from dflow_protocols.simulator.world import World
from dflow_protocols.steps.step import Step
from dflow_protocols.work import ChainWork


def formed(nodes: int = 3) -> World:
    """Nodes that know each other."""
    world = World(spawn, nodes=nodes, seed=1, seeds=(0,))
    world.run(4.0)
    return world


class Midway:
    """A mesh in the middle of its first step, and one of its nodes to talk to as another member would."""

    def __init__(self) -> None:
        self.world = formed()
        self.run = self.world.submit(0, two_steps())
        self.host = self.world.hosts[1]
        self.peer = self.world.id_of(2)
        self.world.expect(30.0, self._is_rolling_out, "the node rolls out")

    def _is_rolling_out(self) -> bool:
        return any(isinstance(call.work, ChainWork) for call in self.host.calls.values())

    @property
    def node(self) -> Node:
        return node(self.host)

    @property
    def now(self) -> float:
        return self.host.clock.read(self.world.now)

    def tell(self, message: Any) -> list[Action]:
        """What the node does when the peer says this; messages to it are taken out of their frames."""
        actions = self.node.handle(self.now, Received(self.peer, message))
        self.node.check()
        return opened(actions)

    def books(self) -> tuple[object, ...]:
        run = self.node.runs[self.run]
        held = {name: set(holders) for name, holders in run.state.holdings.holders.items() if holders}
        steps = {
            number: (step.settled_digest(), step.records_digest(), self._claims(step), sorted(step.seals))
            for number, step in run.state.steps.items()
        }
        return steps, held, dict(run.state.versions.headers), dict(run.state.failures.known), run.status

    def _claims(self, step: Step) -> set[tuple[TaskKey, NodeId]]:
        """Of all but the peer, which may take its own back at any time."""
        return {(unit, who) for unit, holders in step.claims.items() for who in holders if who != self.peer}


def opened(actions: list[Action]) -> list[Action]:
    flat: list[Action] = []
    for action in actions:
        if isinstance(action, Send):
            flat += [Send(action.to, message) for message in action.message.messages]
        else:
            flat.append(action)
    return flat
