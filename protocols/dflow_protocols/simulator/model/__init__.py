"""What the simulator puts in place of a machine: network, bulk lane, store, engines."""
