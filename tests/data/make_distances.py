"""Makes distances.npz: distances between random masks as two versions of MedPy compute them.

    pip install medpy==0.5.2 && python tests/data/make_distances.py
    pip install medpy==0.4.0 && python tests/data/make_distances.py    # Python 3.9, NumPy below 1.24, SciPy below 1.9

MedPy is under the GPL: it is no dependency of tfaug, and needed here alone. The second command adds to what the first
has written. `hd95` is the same in both; `assd` is not, as MedPy changed its definition in 0.5.2.
"""

import importlib.metadata
import pathlib

import numpy as np
from medpy.metric import binary
from scipy import ndimage

FILE = pathlib.Path(__file__).with_name("distances.npz")


def masks():
    """Pairs [N, 2, X, Y, Z]: smooth blobs of several sizes, a voxel beside a row, two that do not touch."""
    rng = np.random.default_rng(0)
    pairs = np.zeros((6, 2, 24, 20, 7), bool)
    for pair, (sigma, share) in zip(pairs, ((2, 30), (2, 60), (1, 85), (3, 95))):
        for mask in pair:
            field = ndimage.gaussian_filter(rng.normal(size=mask.shape), sigma)
            mask[:] = field > np.percentile(field, share)
    pairs[4, 0, 2:12, 3, 1] = pairs[4, 1, 2, 3, 1] = True
    pairs[5, 0, :3, :4, :2] = pairs[5, 1, 15:, 12:, 5:] = True
    return pairs


def main():
    pairs, spacing = masks(), (1.5, 2.0, 10.0)
    version = importlib.metadata.version("medpy")
    found = dict(np.load(FILE)) if FILE.exists() else {}
    for name in ("hd95", "assd"):
        found[f"{name}_{version}"] = [getattr(binary, name)(one, other, spacing) for one, other in pairs]
    np.savez_compressed(FILE, **{**found, "masks": pairs, "spacing": spacing})


if __name__ == "__main__":
    main()
