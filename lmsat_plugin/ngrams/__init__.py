"""The n-grams of a corpus: their counts, and the spectrum of their matrix."""
