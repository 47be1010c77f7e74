"""Results that other tools wrote, brought into the form of lm-eval's result files: one file for each tool."""
