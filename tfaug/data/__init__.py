"""From image files to batches: readers, preprocessing and its inverse, the cache, the pipeline."""
