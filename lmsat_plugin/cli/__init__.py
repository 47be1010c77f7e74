"""The command ``lmsat``: one file for each subcommand."""
