"""Probes of how robust a checkpoint is: its loss when its weights are changed for a moment, and its sharpness."""
