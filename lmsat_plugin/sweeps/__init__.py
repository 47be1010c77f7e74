"""Sweeps over checkpoints: find them, plan what to measure, run it on one process or many, store the results."""
