"""The world model: an encoder, an action-conditioned predictor in its latent space, and roll-outs through both."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import nn


class WorldModel(Protocol):
    """What planners and nodes need of a model, whatever its family."""

    def encode(self, frames: np.ndarray) -> torch.Tensor:
        """Frames (B, size, size, 3) uint8 rgb → latents (B, D)."""

    def rollout(self, latents: torch.Tensor, proprioception: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """History (B, history, D), normalised proprioception (B, P), actions (B, H, block * A) → (B, H, D)."""


class Jepa(nn.Module):
    """Encoder and predictor trained together; `encode` and `rollout` are the WorldModel protocol."""

    def __init__(self, encoder: nn.Module, predictor: nn.Module):
        super().__init__()
        self.encoder = encoder
        self.predictor = predictor

    def encode(self, frames: np.ndarray | torch.Tensor) -> torch.Tensor:
        """See WorldModel."""
        return self.encoder(as_images(frames))

    def rollout(self, latents: torch.Tensor, proprioception: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """See WorldModel."""
        return self.rollout_states(latents, proprioception, actions)[0]

    def rollout_states(
        self, latents: torch.Tensor, proprioception: torch.Tensor, actions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As rollout, with the predicted proprioception (B, H, P) beside the latents."""
        predicted, states = [], []
        for step in range(actions.shape[1]):
            latent, proprioception = self.predictor(latents, proprioception, actions[:, step])
            latents = torch.cat([latents[:, 1:], latent.unsqueeze(1)], dim=1)
            predicted.append(latent)
            states.append(proprioception)
        return torch.stack(predicted, dim=1), torch.stack(states, dim=1)


def as_images(frames: np.ndarray | torch.Tensor) -> torch.Tensor:
    """Frames (B, H, W, 3) uint8 → (B, 3, H, W) float in [-1, 1]."""
    tensor = torch.from_numpy(np.ascontiguousarray(frames)) if isinstance(frames, np.ndarray) else frames
    return tensor.permute(0, 3, 1, 2).float().div(127.5).sub(1.0)
