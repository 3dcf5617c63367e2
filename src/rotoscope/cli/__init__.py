"""The command line: one file per command; parses and calls, nothing else."""
