"""Inverse dynamics loss: the action must be readable from the latents before and after it.

Pathak et al. (arXiv 1705.05363), for features of what an agent controls; PLDM (arXiv 2502.14819), with VICReg in world
models.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from jepa_ros.world_model.config import ModelConfig


class InverseDynamics(nn.Module):
    """A small learned head: two consecutive latents → the action block between them.

    Patch latents (tokens, D) are averaged over tokens. width: of the hidden layer.
    """

    def __init__(self, config: ModelConfig, width: int = 256):
        super().__init__()
        self.head = nn.Sequential(
            nn.Linear(2 * config.latent_shape[-1], width), nn.GELU(), nn.Linear(width, config.action_block)
        )

    def forward(self, latents: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """Return the mean square error (scalar) for latents (B, T, *L), with gradients, and actions (B, T - 1, K)."""
        z = latents.mean(-2) if latents.dim() == 4 else latents
        return F.mse_loss(self.head(torch.cat([z[:, :-1], z[:, 1:]], dim=-1)), actions)
