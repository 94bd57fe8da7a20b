"""From NIfTI files to batches: readers, the built-in cohort, preprocessing and its inverse, the pipeline."""
