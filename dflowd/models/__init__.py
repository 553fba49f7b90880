"""Language models: parameters by shard, attention masks, packed rows, log-probabilities, sampling, and their proof."""
