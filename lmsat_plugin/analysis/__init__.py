"""Analyses: functions from arrays and tables to small dataclasses. Nothing here imports torch or lm_eval."""
