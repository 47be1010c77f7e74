"""The rooms that know lm-eval: the model, the task, the results. No other module imports it."""
