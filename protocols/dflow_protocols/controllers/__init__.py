"""Controllers of one run: each compares what should be with the run's state, and emits the difference."""
