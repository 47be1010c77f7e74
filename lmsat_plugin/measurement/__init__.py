"""Documents become windows, windows become batches, batches feed the probes."""
