"""Models ranked side by side."""
