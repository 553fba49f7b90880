"""What is settled before a daemon listens: its configuration, its keys, and what its host must have."""
