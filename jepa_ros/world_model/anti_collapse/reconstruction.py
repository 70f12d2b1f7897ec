"""Reconstruction: a decoder must draw the frame from its latent. The generative baseline to joint embedding.

LeCun (A Path Towards Autonomous Machine Intelligence, 2022) argues that a loss on pixels spends the latent on details
that cannot be predicted and do not matter. This is that loss, on the same encoder.

Differences to MAE (arXiv 2111.06377): the encoder is that of the family and returns one latent, so the image passes a
bottleneck of D numbers; the decoder is convolutional; pixels are not normalised by patch; and frames are encoded whole
unless `masked` is set. With `masked` only hidden patches count, as in MAE.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from jepa_ros.world_model.anti_collapse.protocol import AntiCollapse
from jepa_ros.world_model.protocol import as_images


class Reconstruction(AntiCollapse):
    """Targets are the latents without gradient; the regulariser is the error of a decoder.

    Without the stop-gradient the prediction error could be reduced by shrinking all latents, which a decoder can undo.
    Generative world models have a similar guard (DreamerV2, arXiv 2010.02193, "KL balancing").

    latent: D. size: S. mean, std: of the frames' colours, on values 0 to 1. masked: share of patches of `patch` pixels
    a side that are hidden from the encoder; this needs a second pass of the encoder, which does not change its running
    statistics.
    """

    weight: ClassVar[float] = 1.0

    def __init__(
        self,
        model: nn.Module,
        latent: int,
        size: int,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        masked: float = 0.0,
        patch: int = 8,
    ):
        super().__init__()
        self._model = (model,)  # in a tuple, so that its parameters do not count as this module's
        self.decoder = Decoder(latent, size)
        self.masked, self.patch = masked, patch
        self.register_buffer("mean", torch.tensor(mean), persistent=False)
        self.register_buffer("std", torch.tensor(std), persistent=False)

    def targets(self, model: nn.Module, frames: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        return latents.detach()

    def loss(self, latents: torch.Tensor, frames: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        """See AntiCollapse: mean square error of the pixels, colours normalised by mean and std."""
        images = as_images(frames, self.mean, self.std)
        if not self.masked:
            return F.mse_loss(self.decoder(latents.flatten(0, 1)), images)
        hidden = self._draw_mask(frames, generator)
        grey = (255.0 * self.mean).round().to(torch.uint8)
        (model,) = self._model
        with _frozen_statistics(model):
            seen = model.encode(torch.where(hidden.unsqueeze(-1), grey, frames.to(hidden.device)))
        error = (self.decoder(seen) - images).square().mean(1)
        return (error * hidden).sum() / hidden.sum()

    def _draw_mask(self, frames: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        """Return the pixels (N, S, S) bool in hidden patches, of which each frame has the same number."""
        side = -(-frames.shape[1] // self.patch)
        device = self.mean.device if generator is None else generator.device
        order = torch.rand(len(frames), side * side, generator=generator, device=device).argsort(1)
        hidden = (order < round(self.masked * side * side)).view(-1, side, side)
        pixels = hidden.repeat_interleave(self.patch, 1).repeat_interleave(self.patch, 2)
        return pixels[:, : frames.shape[1], : frames.shape[2]].to(self.mean.device)


class Decoder(nn.Module):
    """Latents (N, D) → images (N, 3, size, size), at about the cost of the small convolutional encoder.

    A linear map to a grid of an eighth of the size, two convolutions, and a linear map from each cell to its pixels, as
    at MAE's end.
    """

    def __init__(self, latent: int, size: int, channels: int = 64, patch: int = 8):
        super().__init__()
        self.size, self.channels, self.side = size, channels, -(-size // patch)
        self.input = nn.Linear(latent, channels * self.side**2)
        self.output = nn.Sequential(
            nn.GELU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(channels, 3 * patch**2, 1),
            nn.PixelShuffle(patch),
        )

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """See the class; a size that is no multiple of the patch is cropped from the next multiple."""
        grid = self.input(latents).view(-1, self.channels, self.side, self.side)
        return self.output(grid)[:, :, : self.size, : self.size]


@contextmanager
def _frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Within the context BatchNorms use the batch's statistics and do not update running ones with masked frames."""
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
