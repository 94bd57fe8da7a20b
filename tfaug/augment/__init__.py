"""Augmentations: one transform a file, and the methods of Table 1 as rows."""
