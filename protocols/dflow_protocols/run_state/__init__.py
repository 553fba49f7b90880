"""What a node knows of one run."""
