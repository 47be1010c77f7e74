"""A checkpoint's states and predictions beside those of another."""
