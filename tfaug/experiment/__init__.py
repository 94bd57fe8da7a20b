"""From a config to runs; the only reader of the config.

sources.py       which cases there are, and their prepared scans
networks.py      networks and augmentations
stages.py        the two trainings: of a generator, of a segmenter
diagnostics.py   what a validation tells of a generator, and the pictures of both trainings
runs.py          what finished runs are good for: trained networks, evaluations
exporting.py     the folder of a network for other programs
portable.py      the network in it: Keras, SavedModel, ONNX
"""
