"""From a config to runs; the only reader of the config.

sources.py       the cases and their prepared scans
networks.py      networks and augmentations
stages.py        the two trainings: of a generator, of a segmenter
drawing.py       the pictures of both trainings
instruments.py   what a validation measures of a generator
runs.py          the use of finished runs: trained networks, evaluations
exporting.py     the folder of a network exported to other programs
portable.py      the network in it: Keras, SavedModel, ONNX
"""
