"""Losses, a paper's page each: sums over tokens, whose divisor is applied at the tree's root."""
