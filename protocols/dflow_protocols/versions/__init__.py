"""Versions of a model's state: which one is held, which one wins, how a node that is behind catches up."""
