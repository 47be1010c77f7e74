"""The built-in probes, one file or folder each; they are registered like those of any plugin."""
