"""Advantages, a paper's page each: how far a completion's reward is from what its group gives."""
