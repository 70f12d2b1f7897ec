"""The interface between training and the methods against collapse of the latents.

Shapes: T time steps, B windows, N = T * B situations; F: the model's frame_shape, (S, S, 3) for one camera and
(cameras, S, S, 3) for more, S pixels a side; L: the model's latent_shape.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn


class AntiCollapse(nn.Module):
    """Targets of the predictions, and a regulariser of the latents.

    This base class, the method "none", does not regularise: right for frozen encoders, which cannot collapse, and a
    baseline that shows the collapse of others. Its parameters() are optimised and its state_dict() is saved to resume.

    weight: default weight of `loss` relative to the mean square prediction error.
    """

    weight: ClassVar[float] = 0.0

    def targets(self, model: nn.Module, frames: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """Return the targets (N, *L) of predictions. frames: (N, *F) uint8. latents: (N, *L), model.encode(frames) with
        gradients."""
        return latents

    def loss(self, latents: torch.Tensor, frames: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        """Return the scalar regulariser of latents (T, B, *L), unweighted.

        It is of the batch of all ranks or, where it is a mean over frames, of this rank's. frames: (T * B, *F) uint8,
        frames[t * B + b]. generator: of random numbers; in distributed training it has the same state on all ranks.
        """
        return latents.new_zeros(())

    def after_step(self, model: nn.Module) -> None:
        """Update the method after a step of the optimiser. model: the model itself, not a wrapper."""


def by_position(latents: torch.Tensor) -> torch.Tensor:
    """Latents (T, B, D) or (T, B, tokens, D) → (T', B, D): each token has its own distribution over the batch.

    With tokens as part of the batch, an encoder that encodes only their position would not count as collapsed.
    """
    return latents if latents.dim() == 3 else latents.transpose(1, 2).flatten(0, 1)


def full_precision(latents: torch.Tensor) -> torch.Tensor:
    """Convert to at least float32: in half precision the statistics are too coarse to detect a collapse."""
    return latents if latents.dtype == torch.float64 else latents.float()
