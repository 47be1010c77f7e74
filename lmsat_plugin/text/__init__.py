"""From text to windows: corpora, tokens, windows, batches."""
