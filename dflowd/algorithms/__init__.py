"""Algorithms, one paper's page each: losses and advantages as sums, whose divisor is applied at the tree's root.

Start with the index in README.md; models/likelihood.py gives every loss its log-probabilities.
"""
