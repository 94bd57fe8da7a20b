"""MONAI's U-Net with MONAI's augmentation, for `benchmarks.others`; needs PyTorch and MONAI (`pip install monai`)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from monai import transforms
from monai.losses import DiceCELoss
from monai.networks.nets import BasicUNet

BOTH = ("image", "label")


def train(
    original: tuple[np.ndarray, np.ndarray],
    generated: tuple[np.ndarray, np.ndarray] | None,
    num_classes: int,
    *,
    steps: int,
    batch_size: int,
    seed: int,
) -> Callable[[np.ndarray], np.ndarray]:
    """Trains `BasicUNet` with its default settings, a Dice and cross-entropy loss, and Adam.

    Args:
      original: images [N, H, W, C] and labels [N, H, W].
      generated: the same for the generated set, which fills half of each batch; None: no generated set.
      num_classes: including the background.
      steps: number of updates.
      batch_size: slices per update.
      seed: seed for weights, batches and augmentation.

    Returns:
      function from images [N, H, W, C] to probabilities [N, H, W, num_classes].
    """
    torch.manual_seed(seed)
    augment, draw = augmentation().set_random_state(seed), np.random.default_rng(seed)
    network = BasicUNet(spatial_dims=2, in_channels=original[0].shape[-1], out_channels=num_classes)
    loss_of = DiceCELoss(to_onehot_y=True, softmax=True)
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    sources = [original] if generated is None else [original, generated]
    for _ in range(steps):
        slices = []
        for images, labels in sources:
            for k in draw.integers(len(images), size=batch_size // len(sources)):
                slices.append(augment({"image": images[k].transpose(2, 0, 1), "label": labels[k][None]}))
        image, label = (torch.stack([torch.as_tensor(one[key]) for one in slices]) for key in BOTH)
        optimizer.zero_grad()
        loss_of(network(image.float()), label).backward()
        optimizer.step()
    network.eval()

    def predict(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            logits = network(torch.from_numpy(images.transpose(0, 3, 1, 2)).float())
        return torch.softmax(logits, 1).numpy().transpose(0, 2, 3, 1)

    return predict


def augmentation() -> transforms.Compose:
    """The augmentation of MONAI's segmentation tutorials: flips, rotation, zoom, noise, blur, contrast, intensity."""
    return transforms.Compose(
        [
            transforms.RandFlipd(BOTH, prob=0.5, spatial_axis=0),
            transforms.RandFlipd(BOTH, prob=0.5, spatial_axis=1),
            transforms.RandRotated(BOTH, prob=0.5, range_x=0.26, mode=("bilinear", "nearest"), padding_mode="border"),
            transforms.RandZoomd(BOTH, prob=0.3, min_zoom=0.8, max_zoom=1.2, mode=("bilinear", "nearest")),
            transforms.RandGaussianNoised("image", prob=0.15, std=0.05),
            transforms.RandGaussianSmoothd("image", prob=0.15, sigma_x=(0.5, 1.0), sigma_y=(0.5, 1.0)),
            transforms.RandAdjustContrastd("image", prob=0.3, gamma=(0.7, 1.5)),
            transforms.RandScaleIntensityd("image", prob=0.5, factors=0.25),
            transforms.RandShiftIntensityd("image", prob=0.5, offsets=0.1),
        ]
    )
