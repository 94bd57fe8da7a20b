"""Folder layouts, one file each."""
