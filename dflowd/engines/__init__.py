"""Engines: what turns shards into new shards, in child processes of the daemon (`dflowd/child`).

Read contract.py first (rollouts, gradients, states: what an engine may do), registry.py (their names), then
torch_engine.py; emulated/ keeps the same contract with sleeps and pretended payloads.
"""
