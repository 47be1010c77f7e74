"""Any tree of lm-eval result files as a table. Nothing here imports lm_eval or torch."""
