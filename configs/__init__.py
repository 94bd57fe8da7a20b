"""Experiments as configs; each file's docstring gives its command."""
