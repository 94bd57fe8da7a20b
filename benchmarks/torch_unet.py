"""The U-Net of `tfaug/models/unet.py` in PyTorch, as a reference for `benchmarks.steps`; needs PyTorch."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from benchmarks.timing import Job

NUM_CLASSES = 4
DEPTH = 5
CLASS_WEIGHTS = (0.1, 0.3, 0.3, 0.3)


class UNet(nn.Module):
    """S with its default 16 filters: the same layers in the same order."""

    def __init__(self, filters: int = 16):
        super().__init__()
        widths = [filters * 2**level for level in range(DEPTH)]
        self.encoder = nn.ModuleList(
            nn.Sequential(_block(before, width, 3), _block(width, width, 3))
            for before, width in zip([1, *widths], widths)
        )
        self.up = nn.ModuleList(_block(2 * width, width, 2) for width in widths[:-1])
        self.decoder = nn.ModuleList(
            nn.Sequential(_block(2 * width, width, 3), *[_block(width, width, 3)] * (width > filters))
            for width in widths[:-1]
        )
        head = [_block(filters, filters, 3) for _ in range(3)]
        self.head = nn.Sequential(*head, nn.Conv2d(filters, NUM_CLASSES, 3, padding="same"))

    def forward(self, x):
        """Maps [N, 1, H, W] images to [N, 4, H, W] logits."""
        encoded = []
        for level, encode in enumerate(self.encoder):
            x = encode(functional.max_pool2d(x, 2) if level else x)
            encoded.append(x)
        for level in reversed(range(DEPTH - 1)):
            x = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = self.decoder[level](torch.cat([self.up[level](x), encoded[level]], 1))
        return self.head(x)


def updates(size: int, batch: int, bfloat16: bool, channels_last: bool) -> Job:
    """Eager updates of S on one batch with Adam, float32 or under bfloat16 autocast."""
    torch.manual_seed(0)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    segmenter = UNet().to(memory_format=layout)
    optimizer = torch.optim.Adam(segmenter.parameters(), lr=1e-3)
    image = torch.rand(batch, 1, size, size).to(memory_format=layout)
    label = functional.one_hot(torch.randint(NUM_CLASSES, (batch, size, size)), NUM_CLASSES).permute(0, 3, 1, 2)
    label = label.float().to(memory_format=layout)
    pixel_weight = (label * torch.tensor(CLASS_WEIGHTS).view(1, -1, 1, 1)).sum(1)

    def run() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            logits = segmenter(image)
        cross_entropy = -(functional.log_softmax(logits.float(), 1) * label).sum(1)
        loss = (pixel_weight * cross_entropy).mean()
        loss.backward()
        optimizer.step()
        loss.item()

    return Job(run)


def _block(channels, filters, kernel):
    return nn.Sequential(
        nn.Conv2d(channels, filters, kernel, padding="same", bias=False),
        nn.BatchNorm2d(filters, eps=1e-3, momentum=0.01),
        nn.ReLU(),
    )
