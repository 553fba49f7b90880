"""What is watched of a run as a whole, over all its nodes and all its life: one file a promise, or a few alike."""
