"""One forward pass over a corpus feeds all probes, and text apart from it trains those that learn."""
