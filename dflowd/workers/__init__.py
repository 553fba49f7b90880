"""Processes that run a user's functions: each may end, hang or take too much at any moment, and costs its call."""
