"""Two machines with one key: which of them a frame or a fetch reaches."""

from __future__ import annotations

from random import Random

from dflow_protocols.events import Dial
from dflow_protocols.simulator.machines import Machines
from dflow_protocols.simulator.model.host import Host
from dflow_protocols.simulator.spawn import spawn
from dflow_protocols.simulator.world import World


def lived() -> tuple[World, Host, Host, Host]:
    """A world with a member, an original and its copy."""
    world = World(spawn, nodes=2)
    copy = world.copy(world.hosts[1])
    world.start(copy)
    return world, world.hosts[0], world.hosts[1], copy


def test_a_copy_is_the_same_node_at_another_place() -> None:
    """Others know it by its key, and networks by where it is."""
    machines = Machines(0, (1, 2), (0,), ((),))
    machines.add((0,), Random(1))
    original = machines.add((0,), Random(2))
    original.disk.write("peers", b"1")
    copy = machines.copy(original)
    assert (copy.id, copy.slot_count, copy.disk.values) == (original.id, 2, {"peers": b"1"})
    assert copy.place not in (original.place, machines.all[0].place)
    assert machines.names()[original.id] == "n1"


def test_frames_go_to_whoever_spoke_last_and_fetches_where_the_address_leads() -> None:
    """As a daemon answers over the link that showed life, and dials the bulk lane that was announced."""
    world, member, original, copy = lived()
    assert member.process is not None
    world.run(1.0)
    machines, lanes = world.machines, member.process.lanes
    for speaker, other in ((copy, original), (original, copy)):
        lanes.note_frame(copy.id, speaker.place)
        lanes.watch(Dial(copy.id, copy.key, other.control, other.bulk))
        assert machines.reached(member, copy.id) is speaker
        assert machines.holder(member, copy.id) is other
    world.kill(original)
    assert machines.reached(member, copy.id) is copy, "its link ended, and that one was dialled"


def test_a_client_of_a_silent_process_asks_the_other_one() -> None:
    """Which it is told of."""
    world, _, original, copy = lived()
    assert world.run(10.0, lambda: copy.is_silent)
    assert world.machines.served(copy.index) is original
    assert world.machines.served(original.index) is original
