"""What a daemon must still know after a power cut: the state directory, its disk, its checkpoints."""
