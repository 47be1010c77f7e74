"""Checkpoints that training code wrote become folders that transformers reads: torch's own formats, and any command."""
