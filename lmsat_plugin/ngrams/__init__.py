"""The n-gram dimension of a corpus: counts of n-grams, and the spectrum of their matrix."""
