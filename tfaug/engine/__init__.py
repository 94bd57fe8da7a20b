"""The generic machinery for training and saving: it knows nothing of medicine and imports nothing else of tfaug."""
