"""What trains and saves anything at all: it knows nothing of medicine, and imports nothing else of tfaug."""
