"""From text to batches: corpora, tokens, windows."""
