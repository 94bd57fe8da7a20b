"""Augmentations: one file per transform, and the methods of Table 1 as rows."""
