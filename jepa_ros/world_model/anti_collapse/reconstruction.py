"""The frame must be drawn from its latent: the generative baseline that joint embedding is argued for against.

LeCun (A Path Towards Autonomous Machine Intelligence, 2022) holds that a loss on pixels spends the latent on what
cannot be predicted and does not matter. This is that loss, on the same encoder.

It differs from MAE (arXiv 2111.06377): the encoder is the family's own and gives one latent, so what is drawn passes
through a bottleneck of D numbers; the decoder is convolutional; pixels are not normalised patch by patch; and frames
are seen whole unless `masked` is set, in which case, as in MAE, only hidden patches count.
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
    """Predictions are compared with the latents without gradient.

    Without the stop-gradient the prediction error would fall by shrinking all latents, which a decoder undoes for free.
    World models that draw pixels guard against it too: their dynamics chase the representation more than the other way
    round (DreamerV2, arXiv 2010.02193, "KL balancing").

    latent: D. size: S. mean, std: of the frames' colours, on values of 0 to 1. masked: share of patches of `patch`
    pixels a side that the encoder is not shown; it costs a second pass of the encoder, which leaves no trace in its
    running statistics.
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
        self._model = (model,)  # in a tuple, so that its parameters are not taken for this module's
        self.decoder = Decoder(latent, size)
        self.masked, self.patch = masked, patch
        self.register_buffer("mean", torch.tensor(mean), persistent=False)
        self.register_buffer("std", torch.tensor(std), persistent=False)

    def targets(self, model: nn.Module, frames: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """See AntiCollapse: the latents, without gradient."""
        return latents.detach()

    def loss(self, latents: torch.Tensor, frames: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        """See AntiCollapse: mean square error of the pixels, colours normalised by mean and std."""
        images = as_images(frames, self.mean, self.std)
        if not self.masked:
            return F.mse_loss(self.decoder(latents.flatten(0, 1)), images)
        hidden = self._hidden(frames, generator)
        middle = (255.0 * self.mean).round().to(torch.uint8)
        (model,) = self._model
        with running_statistics_kept(model):
            seen = model.encode(torch.where(hidden.unsqueeze(-1), middle, frames.to(hidden.device)))
        error = (self.decoder(seen) - images).square().mean(1)
        return (error * hidden).sum() / hidden.sum()

    def _hidden(self, frames: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        """Pixels (N, S, S) bool in hidden patches; the same number of patches of each frame."""
        side = -(-frames.shape[1] // self.patch)
        device = self.mean.device if generator is None else generator.device
        order = torch.rand(len(frames), side * side, generator=generator, device=device).argsort(1)
        hidden = (order < round(self.masked * side * side)).view(-1, side, side)
        pixels = hidden.repeat_interleave(self.patch, 1).repeat_interleave(self.patch, 2)
        return pixels[:, : frames.shape[1], : frames.shape[2]].to(self.mean.device)


class Decoder(nn.Module):
    """Latents (N, D) → images (N, 3, size, size): a linear map to a grid of an eighth of the size, two convolutions on
    it, and a linear map from each of its places to the pixels there, as MAE ends.

    It costs about what the small convolutional encoder does.
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
        """See the class; sizes that are no multiple of the patch are cut from the next one."""
        grid = self.input(latents).view(-1, self.channels, self.side, self.side)
        return self.output(grid)[:, :, : self.size, : self.size]


@contextmanager
def running_statistics_kept(module: nn.Module) -> Iterator[None]:
    """Within it, BatchNorms take the batch's statistics and remember nothing: later frames will not be masked."""
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
