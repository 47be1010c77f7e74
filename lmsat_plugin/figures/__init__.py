"""Figures: each function takes a result or a table and returns a matplotlib Figure."""
