"""The process around an engine: one socket to its daemon, shards as mapped memory, signs of progress."""
