"""Statistics that several analyses share: the bootstrap, autoregressive noise, ratios, differences."""
