"""Algorithms, one paper's page each: losses and advantages, known by name in registry.py.

Start with the index in README.md; terms/tokens.py says what a loss is given.
"""
