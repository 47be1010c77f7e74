"""Statistics that several analyses share: the bootstrap, autoregressive noise, ratios, the curve a + b x^−c."""
