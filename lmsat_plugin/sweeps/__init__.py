"""Sweeps over checkpoints: what to measure, where it is, who measures it, and what is done."""
