"""The seam between training and the ways to keep latents from collapsing to a constant.

Shapes: T time steps, B windows, N = T * B situations, F = the model's frame_shape, (S, S, 3) for one camera and
(cameras, S, S, 3) for more, S pixels a side; L = the model's latent_shape.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn


class AntiCollapse(nn.Module):
    """What predictions are compared with, and what is asked of latents beside being predictable.

    As it stands it asks for nothing: right for frozen encoders, which cannot collapse, and a way to see a collapse of
    those that can. Its parameters() are for the optimiser and its state_dict() is for whoever resumes.

    weight: of `loss` beside a mean square prediction error, where nothing else is asked for.
    """

    weight: ClassVar[float] = 0.0

    def targets(self, model: nn.Module, frames: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """What predictions are compared with (N, *L), for frames (N, *F) uint8 and latents (N, *L), which are
        model.encode(frames) with gradients."""
        return latents

    def loss(self, latents: torch.Tensor, frames: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        """Scalar regulariser of latents (T, B, *L), not yet weighted: of the batch of all ranks or, where it is a mean
        over frames, of this rank's.

        frames (T * B, *F) uint8, the time step in front: frames[t * B + b]. generator draws what is drawn; where
        ranks train together it must have the same state on each.
        """
        return latents.new_zeros(())

    def after_step(self, model: nn.Module) -> None:
        """Called after each update of the optimiser with the model itself, not a wrapper of it."""


def by_position(latents: torch.Tensor) -> torch.Tensor:
    """Latents (T, B, D) or (T, B, tokens, D) → (T', B, D): each token has a distribution of its own over the batch.

    Were tokens taken as more of the batch, an encoder that tells positions apart and ignores the image would pass.
    """
    return latents if latents.dim() == 3 else latents.transpose(1, 2).flatten(0, 1)


def full_precision(latents: torch.Tensor) -> torch.Tensor:
    """At least float32: statistics of halves are too coarse to tell a collapse by."""
    return latents if latents.dtype == torch.float64 else latents.float()
