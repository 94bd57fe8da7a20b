"""The command line: one file per command; flags are defined here and in no lower layer."""
