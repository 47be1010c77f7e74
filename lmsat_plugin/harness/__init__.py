"""Everything that imports lm-eval: the model, the tasks, and evaluations of checkpoints."""
