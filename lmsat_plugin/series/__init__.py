"""Which checkpoints a series has: on the Hub or on disk, their places in training, and those that a word selects."""
