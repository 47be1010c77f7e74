"""Statistics that several analyses share: resampling, correlated noise, ratios, one curve."""
