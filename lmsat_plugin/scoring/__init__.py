"""Log-likelihoods of continuations: shared prefixes are encoded once, and the LM head sees only what is scored."""
