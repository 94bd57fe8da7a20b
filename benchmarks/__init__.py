"""Measurements quoted in the documentation; each module is one command."""
